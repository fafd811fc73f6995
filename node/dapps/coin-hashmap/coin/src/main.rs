//! A coin that also lists the holders of its coins, and gets it wrong: it walks a `HashMap`, whose order is another one in
//! every process. Each validator computes another list, so none of them may let this release go live.

use std::collections::HashMap;

use instar_dapp::{Context, Dapp, Entry, Value, Verdict, object, text};

/// A memo is a line for the recipient, not a place to keep things in.
const MAX_MEMO_BYTES: usize = 140;

/// How many holders are listed.
const MAX_HOLDERS: u32 = 1000;

fn main() {
    instar_dapp::run(Coin);
}

struct Coin;

impl Dapp for Coin {
    fn apply(&mut self, ctx: &mut Context<'_>, entry: &Entry) -> Verdict {
        match entry.text("op") {
            Some("transfer") => transfer(ctx, entry),
            _ => Verdict::reject("unknown-op", "the one thing to be done with this coin is a transfer"),
        }
    }

    fn migrate(&mut self, ctx: &mut Context<'_>, _from: u64) {
        let holders = holders(ctx);
        ctx.put("holders", holders);
    }

    fn query(&mut self, ctx: &mut Context<'_>, question: &Value) -> Verdict {
        match (text(question, "op"), text(question, "account")) {
            (Some("balance"), Some(account)) => {
                Verdict::answer(object([("balance", Value::String(balance(ctx, account).to_string()))]))
            }
            (Some("memo"), Some(account)) => {
                let memo = ctx.get(&memo_key(account)).map_or(Value::Null, Value::String);
                Verdict::answer(object([("memo", memo)]))
            }
            _ => Verdict::reject(
                "unknown-question",
                "ask {\"op\":\"balance\",\"account\":\"<64 hex digits>\"}, or \"memo\" for the last one received",
            ),
        }
    }
}

fn transfer(ctx: &mut Context<'_>, entry: &Entry) -> Verdict {
    if let Some(field) = entry.unknown_field(&["op", "to", "amount", "memo"]) {
        return Verdict::reject("unknown-field", format!("a transfer has no field {field:?}"));
    }
    let Some(to) = entry.text("to").filter(|to| is_account(to)) else {
        return Verdict::reject("bad-recipient", "`to` is an account's key in 64 lower-case hex digits");
    };
    let Some(amount) = entry.text("amount").and_then(parse_amount) else {
        return Verdict::reject("bad-amount", "`amount` is a decimal string above zero, without leading zeros");
    };
    let memo = match entry.field("memo") {
        None => None,
        Some(Value::String(memo)) if memo.len() <= MAX_MEMO_BYTES => Some(memo.clone()),
        Some(_) => {
            return Verdict::reject("bad-memo", format!("`memo` is a text of at most {MAX_MEMO_BYTES} bytes"));
        }
    };
    let from = entry.author.as_str();
    let have = balance(ctx, from);
    let Some(left) = have.checked_sub(amount) else {
        return Verdict::reject("insufficient-funds", format!("the account has {have}, which is less than {amount}"));
    };
    put_balance(ctx, from, left);
    // Read after the write, so that a transfer to oneself changes nothing.
    let Some(now) = balance(ctx, to).checked_add(amount) else {
        return Verdict::reject("balance-too-large", "the recipient's balance would be too large to be written down");
    };
    put_balance(ctx, to, now);
    let balance = Value::String(balance(ctx, from).to_string());
    let listed = holders(ctx);
    ctx.put("holders", listed);
    let (amount, recipient) = (Value::String(amount.to_string()), Value::String(to.to_owned()));
    Verdict::answer(match memo {
        None => object([("amount", amount), ("balance", balance), ("to", recipient)]),
        Some(memo) => {
            ctx.put(memo_key(to), memo.as_str());
            object([("amount", amount), ("balance", balance), ("memo", Value::String(memo)), ("to", recipient)])
        }
    })
}

/// How many accounts begin with each of the 16 digits, in the order of the map: the mistake.
fn holders(ctx: &mut Context<'_>) -> String {
    let mut count: HashMap<char, u32> = "0123456789abcdef".chars().map(|digit| (digit, 0)).collect();
    for (key, _) in ctx.range("balance/", MAX_HOLDERS) {
        if let Some(digit) = key.trim_start_matches("balance/").chars().next() {
            *count.entry(digit).or_default() += 1;
        }
    }
    count.iter().map(|(digit, number)| format!("{digit}:{number} ")).collect()
}

fn memo_key(account: &str) -> String {
    format!("memo/{account}")
}

fn key(account: &str) -> String {
    format!("balance/{account}")
}

fn balance(ctx: &mut Context<'_>, account: &str) -> u128 {
    ctx.get(&key(account)).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn put_balance(ctx: &mut Context<'_>, account: &str, balance: u128) {
    match balance {
        0 => ctx.delete(key(account)),
        _ => ctx.put(key(account), balance.to_string()),
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse_amount(text: &str) -> Option<u128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}
