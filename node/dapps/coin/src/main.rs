//! A coin: every account has a balance, and its owner may transfer from it.

use instar_dapp::{Context, Dapp, Entry, Value, Verdict, object, text};

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

    fn query(&mut self, ctx: &mut Context<'_>, question: &Value) -> Verdict {
        match (text(question, "op"), text(question, "account")) {
            (Some("balance"), Some(account)) => {
                Verdict::answer(object([("balance", Value::String(balance(ctx, account).to_string()))]))
            }
            _ => Verdict::reject("unknown-question", "ask {\"op\":\"balance\",\"account\":\"<64 hex digits>\"}"),
        }
    }
}

fn transfer(ctx: &mut Context<'_>, entry: &Entry) -> Verdict {
    if let Some(field) = entry.unknown_field(&["op", "to", "amount"]) {
        return Verdict::reject("unknown-field", format!("a transfer has no field {field:?}"));
    }
    let Some(to) = entry.text("to").filter(|to| is_account(to)) else {
        return Verdict::reject("bad-recipient", "`to` is an account's key in 64 lower-case hex digits");
    };
    let Some(amount) = entry.text("amount").and_then(parse_amount) else {
        return Verdict::reject("bad-amount", "`amount` is a decimal string above zero, without leading zeros");
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
    Verdict::answer(object([
        ("amount", Value::String(amount.to_string())),
        ("balance", Value::String(balance(ctx, from).to_string())),
        ("to", Value::String(to.to_owned())),
    ]))
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
