//! Write a dapp for Instar in Rust.
//!
//! A dapp is a program that is asked, for each block, to test and apply the entries of its topic. It reads lines of JSON
//! from its standard input and writes lines of JSON to its standard output; this crate does that, so that a dapp is an
//! implementation of [`Dapp`] and one call of [`run`].
//!
//! Every validator runs the same entries on the same state and compares what comes out. So a dapp must not depend on
//! anything else: not on a clock, not on randomness but [`Context::seed`], not on the order in which a `HashMap` happens
//! to be walked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, StdinLock, StdoutLock, Write};

pub use tinyjson::JsonValue as Value;

/// The version of the conversation.
const ABI: f64 = 1.0;

/// What a program offers that owns a topic and a key space.
pub trait Dapp {
    /// Tests and applies one entry. What was put or deleted counts only if the verdict is an acceptance.
    fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) -> Verdict;

    /// Rewrites the state when this release takes over from `from`, before it sees any entry.
    fn migrate(&mut self, _ctx: &mut Context<'_>, _from: u64) {}

    /// Answers a question. Writes are refused.
    fn query(&mut self, _ctx: &mut Context<'_>, _question: &Value) -> Verdict {
        Verdict::reject("no-questions", "this dapp answers no questions")
    }
}

/// A signed statement, whose signature was checked, and its nonce on the chain that it was said on.
pub struct Entry {
    /// The entry's id: 64 hex digits.
    pub id: String,
    /// The author's account key: 64 hex digits. On a fork it is another author's: look at `chain` too.
    pub author: String,
    /// The id of the fork that it was said on, 64 hex digits; nothing for an entry of this chain. Only a dapp whose
    /// manifest has `"foreign": true` sees entries of forks. Such an entry took effect there, and says nothing about what
    /// the author has here.
    pub chain: Option<String>,
    /// What is said, a JSON object.
    pub body: Value,
}

impl Entry {
    /// A text field of the body.
    pub fn text(&self, field: &str) -> Option<&str> {
        text(&self.body, field)
    }

    /// A field of the body.
    pub fn field(&self, field: &str) -> Option<&Value> {
        self.body.get::<Fields>()?.get(field)
    }

    /// The first field of the body, in alphabetical order, that is not one of these.
    pub fn unknown_field(&self, known: &[&str]) -> Option<&str> {
        let fields = self.body.get::<Fields>()?;
        // The smallest, so that the answer doesn't depend on the map's order.
        fields.keys().map(String::as_str).filter(|name| !known.contains(name)).min()
    }
}

/// A text field of an object.
pub fn text<'v>(object: &'v Value, field: &str) -> Option<&'v str> {
    object.get::<Fields>()?.get(field)?.get::<String>().map(String::as_str)
}

type Fields = std::collections::HashMap<String, Value>;

/// What a dapp says to an entry or a question.
pub struct Verdict {
    ok: bool,
    rule: String,
    detail: String,
    output: Option<Value>,
}

impl Verdict {
    /// It takes effect.
    pub fn accept() -> Self {
        Self { ok: true, rule: String::new(), detail: String::new(), output: None }
    }

    /// It takes effect, and this is the answer.
    pub fn answer(output: Value) -> Self {
        Self { output: Some(output), ..Self::accept() }
    }

    /// It doesn't: the rule's short name in kebab case, and a sentence.
    pub fn reject(rule: &str, detail: impl Into<String>) -> Self {
        Self { ok: false, rule: rule.to_owned(), detail: detail.into(), output: None }
    }
}

/// A JSON object.
pub fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The block, and the dapp's own state.
pub struct Context<'io> {
    /// The block's height.
    pub height: u64,
    /// The block's time in milliseconds since 1970.
    pub time_ms: u64,
    /// The only randomness there is: 64 hex digits.
    pub seed: String,
    /// What this process knows of the state: nobody else changes it meanwhile.
    known: BTreeMap<String, Option<String>>,
    /// What the entry at hand would change.
    changes: BTreeMap<String, Option<String>>,
    wire: Wire<'io>,
}

impl Context<'_> {
    /// The value of a key.
    pub fn get(&mut self, key: &str) -> Option<String> {
        if let Some(value) = self.changes.get(key).or_else(|| self.known.get(key)) {
            return value.clone();
        }
        self.wire.say(&object([("type", word("get")), ("key", word(key))]));
        let answer = self.wire.hear();
        let value = text(&answer, "value").map(str::to_owned);
        self.known.insert(key.to_owned(), value.clone());
        value
    }

    /// The value that a key has on the trunk, for the answer to a question: what is asked about may count entries that
    /// no block has merged. Grant what the trunk grants, and heed a refusal wherever it stands.
    pub fn get_final(&mut self, key: &str) -> Option<String> {
        let trunk = ("trunk", Value::Boolean(true));
        self.wire.say(&object([("type", word("get")), ("key", word(key)), trunk]));
        text(&self.wire.hear(), "value").map(str::to_owned)
    }

    /// The first `limit` keys that begin with `prefix`, ascending, with their values; as they were before the entry at
    /// hand.
    pub fn range(&mut self, prefix: &str, limit: u32) -> Vec<(String, String)> {
        let limit = Value::Number(f64::from(limit));
        self.wire.say(&object([("type", word("range")), ("prefix", word(prefix)), ("limit", limit)]));
        let answer = self.wire.hear();
        let rows = answer.get::<Fields>().and_then(|fields| fields.get("values")?.get::<Vec<Value>>());
        rows.into_iter()
            .flatten()
            .filter_map(|row| match row.get::<Vec<Value>>()?.as_slice() {
                [key, value] => Some((key.get::<String>()?.clone(), value.get::<String>()?.clone())),
                _ => None,
            })
            .collect()
    }

    /// Sets a key, if the entry at hand is accepted.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.changes.insert(key.into(), Some(value.into()));
    }

    /// Deletes a key, if the entry at hand is accepted.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.changes.insert(key.into(), None);
    }

    fn settle(&mut self, accepted: bool) {
        for (key, value) in std::mem::take(&mut self.changes) {
            if !accepted {
                continue;
            }
            self.wire.say(&match &value {
                Some(value) => object([("type", word("put")), ("key", word(&key)), ("value", word(value))]),
                None => object([("type", word("delete")), ("key", word(&key))]),
            });
            self.known.insert(key, value);
        }
    }
}

fn word(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// Talks to the host until it says that this was all. The program ends here if the host breaks the conversation off.
pub fn run(mut dapp: impl Dapp) {
    let mut wire = Wire { input: std::io::stdin().lock(), output: BufWriter::new(std::io::stdout().lock()) };
    let begin = wire.hear();
    let number = |object: &Value, field: &str| number(object, field);
    if number(&begin, "abi") != Some(ABI) {
        broken("the host speaks another ABI");
    }
    let mut ctx = Context {
        height: number(&begin, "height").unwrap_or(0.0) as u64,
        time_ms: number(&begin, "time_ms").unwrap_or(0.0) as u64,
        seed: text(&begin, "seed").unwrap_or_default().to_owned(),
        known: BTreeMap::new(),
        changes: BTreeMap::new(),
        wire,
    };
    if text(&begin, "mode") == Some("migrate") {
        let from = begin.get::<Fields>().and_then(|fields| fields.get("migrate"));
        let from = from.and_then(|migrate| number(migrate, "from_number")).unwrap_or(0.0) as u64;
        // The host has said all it has to say; what comes after its `end` are answers to what the dapp asks.
        if text(&ctx.wire.hear(), "type") != Some("end") {
            broken("the host goes on after it asked to migrate");
        }
        dapp.migrate(&mut ctx, from);
        ctx.settle(true);
        ctx.wire.say(&object([("type", word("done"))]));
        ctx.wire.flush();
        return;
    }
    loop {
        let line = ctx.wire.hear();
        match text(&line, "type") {
            Some("entries") => entries(&mut dapp, &mut ctx, line),
            Some("question") => {
                let nothing = Value::Null;
                let body = line.get::<Fields>().and_then(|fields| fields.get("body")).unwrap_or(&nothing);
                let verdict = dapp.query(&mut ctx, body);
                ctx.settle(false);
                ctx.wire.say(&verdict_line("answer", None, verdict));
            }
            Some("end") => {
                ctx.wire.say(&object([("type", word("done"))]));
                ctx.wire.flush();
                return;
            }
            _ => broken("the host said something unknown"),
        }
    }
}

fn entries(dapp: &mut impl Dapp, ctx: &mut Context<'_>, line: Value) {
    let Value::Object(mut fields) = line else { broken("entries in no object") };
    if let Some(Value::Object(state)) = fields.remove("state") {
        for (key, value) in state {
            let value = if let Value::String(value) = value { Some(value) } else { None };
            ctx.known.insert(key, value);
        }
    }
    let Some(Value::Array(list)) = fields.remove("entries") else { broken("no entries") };
    for entry in list {
        let Value::Object(mut fields) = entry else { broken("an entry that is no object") };
        let mut take = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => text,
            _ => broken("an entry lacks a field"),
        };
        let (id, author) = (take("id"), take("author"));
        let chain = match fields.remove("chain") {
            None => None,
            Some(Value::String(chain)) => Some(chain),
            Some(_) => broken("an entry's chain is no text"),
        };
        let entry = Entry { id, author, chain, body: fields.remove("body").unwrap_or(Value::Null) };
        let verdict = dapp.apply(ctx, &entry);
        ctx.settle(verdict.ok);
        ctx.wire.say(&verdict_line("verdict", Some(&entry.id), verdict));
    }
}

fn verdict_line(kind: &str, id: Option<&str>, verdict: Verdict) -> Value {
    let mut fields = Fields::from([("type".to_owned(), word(kind)), ("ok".to_owned(), Value::Boolean(verdict.ok))]);
    if let Some(id) = id {
        fields.insert("id".to_owned(), word(id));
    }
    if !verdict.ok {
        fields.insert("rule".to_owned(), Value::String(verdict.rule));
        fields.insert("detail".to_owned(), Value::String(verdict.detail));
    }
    if let Some(output) = verdict.output {
        fields.insert("output".to_owned(), output);
    }
    Value::Object(fields)
}

fn number(object: &Value, field: &str) -> Option<f64> {
    object.get::<Fields>()?.get(field)?.get::<f64>().copied()
}

struct Wire<'io> {
    input: StdinLock<'io>,
    output: BufWriter<StdoutLock<'io>>,
}

impl Wire<'_> {
    fn say(&mut self, value: &Value) {
        let written = value.write_to(&mut self.output).and_then(|()| self.output.write_all(b"\n"));
        if written.is_err() {
            broken("the host is gone");
        }
    }

    fn flush(&mut self) {
        if self.output.flush().is_err() {
            broken("the host is gone");
        }
    }

    fn hear(&mut self) -> Value {
        self.flush();
        let mut line = String::new();
        match self.input.read_line(&mut line) {
            Ok(0) | Err(_) => broken("the host is gone"),
            Ok(_) => line.parse().unwrap_or_else(|_| broken("the host said something that is no JSON")),
        }
    }
}

fn broken(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(70)
}
