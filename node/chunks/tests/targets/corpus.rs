//! What a corpus must be: each file is taken or refused as its name says.

/// The names of the files in `folder` that `target` refuses, in order. What the fuzzer found is called by its SHA-1 and
/// stands for nothing.
pub fn refused(folder: &str, target: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut refused: Vec<String> = files
        .map(|file| file.expect("the corpus can be read"))
        .filter(|file| !target(&std::fs::read(file.path()).expect("the corpus can be read")))
        .map(|file| file.file_name().into_string().expect("names are text"))
        .filter(|name| is_by_hand(name))
        .collect();
    refused.sort();
    refused
}

fn is_by_hand(name: &str) -> bool {
    !(name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}
