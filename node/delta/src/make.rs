//! Makes the delta from one file to another.

use sha2::{Digest, Sha256};

use crate::absolute::absolute;
use crate::align::{Command, align};
use crate::coder::Encoder;
use crate::correct::{Corrector, PIECE_BYTES, fields_of};
use crate::elf::{self, Layout};
use crate::error::{DeltaError, MAX_COMMANDS, MAX_FILE_BYTES, MAX_STRUCTURE_BYTES};
use crate::fields::{Kind, Range, find, range_at};
use crate::header::Header;
use crate::literals;
use crate::map::Map;
use crate::plan::{Plan, Sizes};
use crate::predict::Predictor;

/// How often programs are aligned: first with addresses blanked out, then with addresses told by where the first
/// alignment says they went. A third time gains 2 %.
const ALIGNMENTS: usize = 3;

/// Makes the delta that rebuilds `new` from `old`. Takes some 6 times the size of `old` in memory. With an empty `old` it is
/// `new`, compressed.
pub fn make(old: &[u8], new: &[u8]) -> Result<Vec<u8>, DeltaError> {
    for (what, bytes) in [("old", old), ("new", new)] {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(DeltaError::TooLarge {
                what,
                bytes: bytes.len() as u64,
            });
        }
    }
    let sizes = Sizes {
        old: old.len() as u64,
        new: new.len() as u64,
    };
    let (plan, structure) = plan(old, new, sizes)?;
    let (corrections, literal) = encode(&plan, old, new, sizes);
    let literals =
        literals::compress(&literal).map_err(DeltaError::io("compressing the literals"))?;
    let header = Header {
        sizes,
        old_sha256: Sha256::digest(old).into(),
        new_sha256: Sha256::digest(new).into(),
        structure: structure.len() as u64,
        corrections: corrections.len() as u64,
        literals: literals.len() as u64,
        literal_bytes: literal.len() as u64,
    };
    let mut out = header.to_bytes();
    out.extend(structure);
    out.extend(corrections);
    out.extend(literals);
    Ok(out)
}

fn plan(old: &[u8], new: &[u8], sizes: Sizes) -> Result<(Plan, Vec<u8>), DeltaError> {
    let mut plan = match (elf::layout(old), elf::layout(new)) {
        (Some(o), Some(n)) => program(old, new, &o, &n),
        _ => Plan {
            commands: align(old, new),
            ..Plan::default()
        },
    };
    loop {
        let mut encoder = Encoder::default();
        let coded = plan.code(&mut encoder, sizes).map(|same| {
            debug_assert_eq!(same, plan);
            encoder.finish()
        });
        match coded {
            Ok(bytes) if bytes.len() as u64 <= MAX_STRUCTURE_BYTES => return Ok((plan, bytes)),
            // A file whose layout is strange is a file without layout.
            Err(_) if !plan.old.segments().is_empty() => {
                plan = Plan {
                    commands: align(old, new),
                    ..Plan::default()
                };
            }
            _ => {
                let most = (plan.commands.len() / 2).min(MAX_COMMANDS as usize).max(1);
                plan.commands = longest(&plan.commands, most);
            }
        }
    }
}

/// Keeps the longest copies; the others become literals.
fn longest(commands: &[Command], most: usize) -> Vec<Command> {
    let mut order: Vec<usize> = (0..commands.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(commands[*i].len), *i));
    let mut keep = vec![false; commands.len()];
    for i in order.into_iter().take(most) {
        keep[i] = true;
    }
    let mut out: Vec<Command> = Vec::with_capacity(most + 1);
    for (command, keep) in commands.iter().zip(keep) {
        match out.last_mut() {
            Some(last) if !keep => last.extra += command.len + command.extra,
            _ if keep => out.push(*command),
            _ => out.push(Command {
                old: 0,
                len: 0,
                extra: command.len + command.extra,
            }),
        }
    }
    out
}

/// The plan for a program.
fn program(old: &[u8], new: &[u8], old_layout: &Layout, new_layout: &Layout) -> Plan {
    let ranges = elf::ranges(old, old_layout, new_layout);
    let new_ranges = elf::ranges(new, new_layout, new_layout);
    let blank = |_: u64| 0;
    let mut commands = align(
        &rewrite(old, old_layout, &ranges, &blank),
        &rewrite(new, new_layout, &new_ranges, &blank),
    );
    let same = rewrite(old, old_layout, &ranges, &|target| target as u32);
    for _ in 1..ALIGNMENTS {
        let mut places = Vec::with_capacity(commands.len());
        let mut place = 0;
        for c in &commands {
            places.push((place, c.old));
            place += c.len + c.extra;
        }
        // Where in the old program an address of the new one was.
        let back = |target: u64| {
            let Some(offset) = new_layout.image.offset_of(target) else {
                return 0;
            };
            let after = places.partition_point(|(new, _)| *new <= offset);
            let Some((new, old)) = after.checked_sub(1).map(|i| places[i]) else {
                return 0;
            };
            let offset = old.wrapping_add(offset - new);
            old_layout.image.address_of(offset).unwrap_or(0) as u32
        };
        commands = align(&same, &rewrite(new, new_layout, &new_ranges, &back));
    }
    Plan {
        old: old_layout.image.clone(),
        new: new_layout.image.clone(),
        ranges,
        commands,
    }
}

/// The file with every address in it replaced.
fn rewrite(file: &[u8], layout: &Layout, ranges: &[Range], by: &dyn Fn(u64) -> u32) -> Vec<u8> {
    let mut out = file.to_vec();
    let mut fields = Vec::new();
    for range in ranges {
        let (start, end) = (range.offset as usize, (range.offset + range.len) as usize);
        fields.clear();
        find(&layout.image, range, 0, &file[start..end], &mut fields);
        for field in &fields {
            let at = start + field.at as usize;
            out[at..at + 4].copy_from_slice(&by(field.target).to_le_bytes());
            out[at + 4..at + field.form.width()].fill(0);
        }
    }
    out
}

fn encode(plan: &Plan, old: &[u8], new: &[u8], sizes: Sizes) -> (Vec<u8>, Vec<u8>) {
    let map = Map::new(&plan.commands, sizes.old);
    let predictor = Predictor::new(&plan.old, &plan.new, &map);
    let mut corrector = Corrector::new(&plan.new, predictor);
    let mut bits = Encoder::default();
    let mut literals = Vec::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut fields = Vec::new();
    let mut place = 0u64;
    for command in &plan.commands {
        for (range, from, len) in pieces(&plan.ranges, command) {
            let bytes = &mut buffer[..len];
            bytes.copy_from_slice(&old[from as usize..from as usize + len]);
            let actual = &new[place as usize..place as usize + len];
            fields.clear();
            fields_of(plan, range, from, place, bytes, &mut fields);
            let code = range.is_some_and(|r| r.kind == Kind::CodeX64);
            corrector.correct(&mut bits, code, &fields, place, bytes, actual);
            debug_assert_eq!(bytes, actual);
            place += len as u64;
        }
        let code = follows_code(&plan.ranges, command);
        let end = place + command.extra;
        while place < end {
            let len = (end - place).min(PIECE_BYTES as u64) as usize;
            let bytes = &mut buffer[..len];
            bytes.copy_from_slice(&new[place as usize..place as usize + len]);
            if code {
                absolute(bytes, place);
            }
            literals.extend_from_slice(bytes);
            place += len as u64;
        }
    }
    (bits.finish(), literals)
}

/// Whether a command's literals follow machine code, and so are taken for such.
pub(crate) fn follows_code(ranges: &[Range], command: &Command) -> bool {
    command.len > 0
        && range_at(ranges, command.old + command.len - 1).is_ok_and(|r| r.kind == Kind::CodeX64)
}

/// Cuts a command's copy where ranges start and end, and each [`PIECE_BYTES`] from there.
pub(crate) fn pieces<'a>(
    ranges: &'a [Range],
    command: &Command,
) -> impl Iterator<Item = (Option<&'a Range>, u64, usize)> + use<'a> {
    let (mut at, end) = (command.old, command.old + command.len);
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let (range, until) = match range_at(ranges, at) {
            Ok(range) => (Some(range), range.offset + range.len),
            Err(next) => (None, next),
        };
        let len = (until.min(end) - at).min(PIECE_BYTES as u64);
        let piece = (range, at, len as usize);
        at += len;
        Some(piece)
    })
}
