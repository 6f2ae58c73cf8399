//! `--env-file`: the variables in a file as systemd's `EnvironmentFile=` takes it (systemd.exec(5)), so that a command
//! asks with the options of the service. Pure.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What the option is called.
pub(super) const OPTION: &str = "--env-file";

/// The file that the arguments name, before they are read: the options that it holds are part of them. `None` if they
/// name none, or leave its name out, of which reading them complains.
pub fn file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (&*text, None),
        };
        // One dash is as good as two.
        if name == OPTION || name == &OPTION[1..] {
            return inline.or_else(|| rest.next().cloned()).map(PathBuf::from);
        }
    }
    None
}

/// The variables of `text`, the last value of each name last.
///
/// # Errors
/// The number of the first line that sets no variable.
pub fn variables(text: &str) -> Result<Vec<(String, OsString)>, usize> {
    let mut variables = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (name, mut rest) = line
            .split_once('=')
            .map(|(name, rest)| (name.trim_end(), rest.trim_start().to_owned()))
            .filter(|(name, _)| is_name(name))
            .ok_or(number + 1)?;
        let value = loop {
            match value(&rest) {
                Some(value) => break value,
                // A quote, or a backslash at its end, takes the next line in.
                None => {
                    let (_, next) = lines.next().ok_or(number + 1)?;
                    rest = format!("{rest}\n{next}");
                }
            }
        };
        variables.push((name.to_owned(), OsStr::new(&value).to_owned()));
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

/// The value without its quotes; `None` if it goes on in the next line.
fn value(text: &str) -> Option<String> {
    let mut value = String::new();
    // As long as what stands unquoted at the end has no blanks.
    let mut kept = 0;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (Some('\''), _) => value.push(character),
            (_, '\\') => match characters.next()? {
                '\n' => {}
                // Within double quotes a backslash hides these only.
                hidden if quote.is_some() && !"\"\\`$".contains(hidden) => {
                    value.extend(['\\', hidden]);
                }
                hidden => value.push(hidden),
            },
            _ => value.push(character),
        }
        let is_blank = quote.is_none() && character.is_whitespace();
        kept = if is_blank { kept } else { value.len() };
    }
    value.truncate(kept);
    quote.is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, usize> {
        let plain = |(name, value): (String, OsString)| (name, value.into_string().unwrap());
        variables(text).map(|found| found.into_iter().map(plain).collect())
    }

    fn one(text: &str) -> String {
        read(text).unwrap().pop().unwrap().1
    }

    #[test]
    fn a_file_as_systemd_reads_it() {
        let text = "# WMGWD_NAME=no\n; nor this\n\nWMGWD_MAXVNI=7\n  WMGWD_ETCD = http://a,http://b  \nA=\n";
        let found = read(text).unwrap();
        let expected = [
            ("WMGWD_MAXVNI", "7"),
            ("WMGWD_ETCD", "http://a,http://b"),
            ("A", ""),
        ];
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(one("A=\"one two \" "), "one two ");
        assert_eq!(one("A='it \\ \"is\"'"), "it \\ \"is\"");
        assert_eq!(one(r#"A="\$x \n \"""#), r#"$x \n ""#);
        assert_eq!(one("A=one\\\ntwo"), "onetwo");
        assert_eq!(one("A=one\\ two # three"), "one two # three");
        assert_eq!(one("A='one\ntwo'"), "one\ntwo");
    }

    #[test]
    fn lines_that_set_nothing_are_numbered() {
        assert_eq!(read("A=1\nexport B=2\n"), Err(2));
        assert_eq!(read("A=1\n\nWMGWD_NAME\n"), Err(3));
        assert_eq!(read("1A=1\n"), Err(1));
        assert_eq!(read("A=\"open\n"), Err(1));
    }

    #[test]
    fn the_file_is_found_among_the_arguments() {
        let found = |words: &[&str]| file(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(found(&["check", "--env-file", "/a b"]), Some("/a b".into()));
        assert_eq!(
            found(&["status", "5", "-env-file=/a=b"]),
            Some("/a=b".into())
        );
        assert_eq!(found(&["status", "--env-file"]), None);
        assert_eq!(found(&["drain", "--", "--env-file", "/a"]), None);
    }
}
