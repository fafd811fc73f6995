//! What a request to the gateway asks for: query, `Accept`, `Range`.

use axum::http::{HeaderMap, header};

/// The longest query that is looked at.
const MAX_QUERY_BYTES: usize = 4096;

/// The shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One block.
    Raw,
    /// An archive; `duplicates` if blocks are to come as often as they are linked.
    Car { duplicates: bool },
}

/// One end of `entity-bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    FromStart(u64),
    FromEnd(u64),
    End,
}

/// The parameters that count; others are read over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub format: Option<String>,
    pub scope: Option<String>,
    pub bytes: Option<(Offset, Offset)>,
    version: Option<String>,
    order: Option<String>,
    dups: Option<String>,
}

impl Query {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(format!("the query is longer than {MAX_QUERY_BYTES} bytes"));
        }
        let mut query = Self::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescape(value)?;
            match name {
                "format" => query.format = Some(value),
                "dag-scope" => query.scope = Some(value),
                "entity-bytes" => query.bytes = Some(parse_bytes(&value)?),
                "car-version" => query.version = Some(value),
                "car-order" => query.order = Some(value),
                "car-dups" => query.dups = Some(value),
                _ => {}
            }
        }
        if let Some(scope) = &query.scope
            && !matches!(scope.as_str(), "all" | "entity" | "block")
        {
            return Err(format!("dag-scope={scope} is none of all, entity, block"));
        }
        Ok(query)
    }
}

/// Percent escapes, of which these parameters need only `%3A`, `%2A` and the like.
fn unescape(value: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return Err("the query has a broken percent escape".into()),
        }
    }
    String::from_utf8(out).map_err(|_| "the query is not UTF-8".into())
}

fn parse_bytes(value: &str) -> Result<(Offset, Offset), String> {
    let bad = || format!("entity-bytes={value} is not FROM:TO, e.g. 0:1023, -1024:*");
    let (from, to) = value.split_once(':').ok_or_else(bad)?;
    let offset = |text: &str| match text.strip_prefix('-') {
        Some(back) => back.parse().ok().map(Offset::FromEnd),
        None => text.parse().ok().map(Offset::FromStart),
    };
    let from = offset(from).ok_or_else(bad)?;
    let to = match to {
        "*" => Offset::End,
        to => offset(to).ok_or_else(bad)?,
    };
    Ok((from, to))
}

/// The format by the query, else by `Accept`; what can't be given is refused.
pub(super) fn accepted(query: &Query, headers: &HeaderMap) -> Result<Format, String> {
    let raw = || Ok(Format::Raw);
    match query.format.as_deref() {
        Some("raw") => return raw(),
        Some("car") => {
            let wanted = headers
                .get_all(header::ACCEPT)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .find(|media| media.trim().starts_with("application/vnd.ipld.car"));
            return car(query, wanted.unwrap_or_default());
        }
        Some(other) => {
            return Err(format!(
                "format={other} is not served here; this gateway gives raw and car, which can be verified"
            ));
        }
        None => {}
    }
    let mut best: Option<(f32, Result<Format, String>)> = None;
    let medias = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for media in medias {
        let mut parts = media.split(';').map(str::trim);
        let found = match parts.next().unwrap_or_default() {
            "application/vnd.ipld.raw" => raw(),
            "application/vnd.ipld.car" => car(query, media),
            _ => continue,
        };
        let weight = parts
            .find_map(|p| p.strip_prefix("q="))
            .and_then(|q| q.parse().ok())
            .unwrap_or(1.0);
        // What can't be given loses against what can; else the first of the heaviest wins.
        let better = best
            .as_ref()
            .is_none_or(|(known, format)| (found.is_ok(), weight) > (format.is_ok(), *known));
        if better {
            best = Some((weight, found));
        }
    }
    best.map_or_else(
        || {
            Err(
                "ask for format=raw or format=car: only answers that can be verified are given"
                    .into(),
            )
        },
        |(_, format)| format,
    )
}

fn car(query: &Query, media: &str) -> Result<Format, String> {
    let parameter = |own: &Option<String>, name: &str| {
        own.clone().or_else(|| {
            media
                .split(';')
                .skip(1)
                .filter_map(|part| part.trim().split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        })
    };
    if let Some(version) = parameter(&query.version, "version")
        && version != "1"
    {
        return Err(format!(
            "CAR version {version} is not written here; version 1 is"
        ));
    }
    if let Some(order) = parameter(&query.order, "order")
        && !matches!(order.as_str(), "dfs" | "unk")
    {
        return Err(format!("CAR order {order} is not known; dfs is"));
    }
    match parameter(&query.dups, "dups").as_deref() {
        None | Some("n") => Ok(Format::Car { duplicates: false }),
        Some("y") => Ok(Format::Car { duplicates: true }),
        Some(other) => Err(format!("CAR dups {other} is neither y nor n")),
    }
}

/// The one range of `Range`, from the first byte to before the second; `None` for the whole, an
/// error if it lies outside. Several ranges are answered with the whole, as RFC 9110 allows.
pub(super) fn parse_range(
    headers: &HeaderMap,
    total: usize,
    etag: &str,
) -> Result<Option<(usize, usize)>, ()> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(range) = text(header::RANGE).and_then(|r| r.trim().strip_prefix("bytes=")) else {
        return Ok(None);
    };
    if text(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Ok(None);
    }
    let Some((from, to)) = range
        .trim()
        .split_once('-')
        .filter(|(_, to)| !to.contains(','))
    else {
        return Ok(None);
    };
    let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if to >= from => (from, to.saturating_add(1).min(total)),
        (Ok(from), Err(_)) if to.is_empty() => (from, total),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => (total.saturating_sub(last), total),
        (Err(_), Ok(0)) if from.is_empty() => return Err(()),
        _ => return Ok(None),
    };
    if from >= to {
        Err(())
    } else {
        Ok(Some((from, to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(header::HeaderName, &str)| (name.clone(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn formats() {
        let ask = |query: &str, accept: &str| {
            accepted(
                &Query::parse(query).unwrap(),
                &headers(&[(header::ACCEPT, accept)]),
            )
        };
        let car = |duplicates| Ok(Format::Car { duplicates });
        assert_eq!(
            ask("format=raw", "application/vnd.ipld.car"),
            Ok(Format::Raw)
        );
        assert_eq!(ask("", "application/vnd.ipld.raw"), Ok(Format::Raw));
        assert_eq!(
            ask("", "application/vnd.ipld.car; version=1; order=dfs; dups=y"),
            car(true)
        );
        assert_eq!(
            ask("format=car&car-dups=n", "application/vnd.ipld.car;dups=y"),
            car(false)
        );
        assert_eq!(
            ask("format=car", "application/vnd.ipld.car;dups=y"),
            car(true)
        );
        let both = "application/vnd.ipld.car;order=x, application/vnd.ipld.car;order=dfs;q=0.5";
        assert_eq!(ask("", both), car(false));
        let weighed = "application/vnd.ipld.raw;q=0.1, application/vnd.ipld.car";
        assert_eq!(ask("", weighed), car(false));
        for (query, accept) in [
            ("", "*/*"),
            ("", "text/html"),
            ("format=tar", "application/vnd.ipld.raw"),
            ("format=car&car-version=2", ""),
            ("format=car&car-order=bfs", ""),
            ("format=car&car-dups=maybe", ""),
        ] {
            assert!(ask(query, accept).is_err(), "{query} {accept}");
        }
    }

    #[test]
    fn scopes_and_bytes() {
        let bytes = |text: &str| Query::parse(text).map(|q| q.bytes.unwrap());
        assert_eq!(
            bytes("entity-bytes=0:*"),
            Ok((Offset::FromStart(0), Offset::End))
        );
        assert_eq!(
            bytes("entity-bytes=-1024%3A%2A"),
            Ok((Offset::FromEnd(1024), Offset::End))
        );
        assert_eq!(
            bytes("entity-bytes=499:-1000"),
            Ok((Offset::FromStart(499), Offset::FromEnd(1000)))
        );
        for bad in [
            "entity-bytes=1",
            "entity-bytes=a:b",
            "entity-bytes=*:1",
            "dag-scope=some",
            "entity-bytes=%zz:1",
        ] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges() {
        let range = |text: &str| parse_range(&headers(&[(header::RANGE, text)]), 10, "\"e\"");
        assert_eq!(range("bytes=0-3"), Ok(Some((0, 4))));
        assert_eq!(range("bytes=5-"), Ok(Some((5, 10))));
        assert_eq!(range("bytes=-4"), Ok(Some((6, 10))));
        assert_eq!(range("bytes=8-99"), Ok(Some((8, 10))));
        assert_eq!(range("bytes=10-"), Err(()));
        assert_eq!(range("bytes=-0"), Err(()));
        for whole in ["bytes=0-1,3-4", "lines=1-2", "bytes=x-y", "bytes=5-2"] {
            assert_eq!(range(whole), Ok(None), "{whole}");
        }
        let other = headers(&[(header::RANGE, "bytes=0-3"), (header::IF_RANGE, "\"old\"")]);
        assert_eq!(parse_range(&other, 10, "\"e\""), Ok(None));
    }
}
