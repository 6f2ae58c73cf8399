//! Go's spelling, and operands among the options.

use crate::cli::arguments::{Normal, normalise};
use crate::cli::*;

/// Input: arguments as Go takes them. Output: as argh takes them, `None` for the help.
#[test]
fn gos_spelling_becomes_arghs() {
    #[rustfmt::skip]
    const TABLE: &[(&[&str], Option<&[&str]>)] = &[
        (&[], Some(&[])),
        (&["-name", "gw1"], Some(&["--name", "gw1"])),
        (&["--name", "gw1"], Some(&["--name", "gw1"])),
        (&["-name=gw1"], Some(&["--name", "gw1"])),
        (&["--name=gw1"], Some(&["--name", "gw1"])),
        (&["--name="], Some(&["--name", ""])),
        (&["--name", ""], Some(&["--name", ""])),
        (&["--name=a=b"], Some(&["--name", "a=b"])),
        (&["--name=--minvni"], Some(&["--name", "--minvni"])),
        (&["--name", "--gw1"], Some(&["--name", "--gw1"])),
        (&["--name", "-"], Some(&["--name", "-"])),
        (&["--name", "help"], Some(&["--name", "help"])),
        (&["--name", "withdraw"], Some(&["--name", "withdraw"])),
        (&["-minvni", "-5"], Some(&["--minvni", "-5"])),
        (&["-drain-timeout=5", "-join-hold", "1.5"], Some(&["--drain-timeout", "5", "--join-hold", "1.5"])),
        (&["-mock"], Some(&["--mock"])),
        (&["--mock"], Some(&["--mock"])),
        (&["-mock=1"], Some(&["--mock"])),
        (&["-mock=t"], Some(&["--mock"])),
        (&["-mock=T"], Some(&["--mock"])),
        (&["-mock=TRUE"], Some(&["--mock"])),
        (&["--mock=true"], Some(&["--mock"])),
        (&["--mock=True"], Some(&["--mock"])),
        (&["-mock=0"], Some(&[])),
        (&["-mock=f"], Some(&[])),
        (&["-mock=F"], Some(&[])),
        (&["-mock=FALSE"], Some(&[])),
        (&["--mock=false"], Some(&[])),
        (&["--mock=False"], Some(&[])),
        (&["-mock", "-debug=0", "-name=x"], Some(&["--mock", "--name", "x"])),
        (&["-name=x", "--"], Some(&["--name", "x"])),
        (&["-h"], None),
        (&["--h"], None),
        (&["-help"], None),
        (&["--help"], None),
        (&["-name", "x", "-mock", "--help", "--what"], None),
    ];
    for (given, expected) in TABLE {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        let spelled = match normalise(&given, &Args::get_args_info()).unwrap() {
            Normal::Arguments(spelled) => Some(spelled.into_texts()),
            Normal::Help => None,
        };
        let expected = expected.map(<[_]>::to_vec);
        assert_eq!(
            spelled,
            expected.map(|texts| texts.iter().map(ToString::to_string).collect()),
            "{given:?}"
        );
    }
}

/// Any number of operands behind one.
#[derive(FromArgs, ArgsInfo, PartialEq, Eq, Debug)]
struct WithOperands {
    /// a switch
    #[argh(switch)]
    json: bool,
    /// an option
    #[argh(option)]
    etcd: Option<String>,
    /// the first one
    #[argh(positional)]
    first: String,
    /// the others
    #[argh(positional)]
    others: Vec<String>,
}

/// Contract: options and operands may come in any order; behind `--`, and without a dash, are operands.
#[test]
fn operands_stand_among_the_options() {
    type Words = &'static [&'static str];
    #[rustfmt::skip]
    const TABLE: &[(Words, bool, Option<&str>, Words)] = &[
        (&["7"], false, None, &["7"]),
        (&["7", "-json", "8"], true, None, &["7", "8"]),
        (&["-json", "false", "-etcd", "x", "9"], true, Some("x"), &["false", "9"]),
        (&["-etcd=x", "--", "-json", "--", "-h"], false, Some("x"), &["-json", "--", "-h"]),
        (&["-json=false", "-"], false, None, &["-"]),
        (&["help"], false, None, &["help"]),
    ];
    for (given, json, etcd, operands) in TABLE {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        let filled = fill::<WithOperands>(&["wmgwd", "x"], &given, |_| None).unwrap();
        let (args, _) = filled.unwrap_or_else(|help| panic!("{given:?}: {help}"));
        assert_eq!(
            (args.json, args.etcd.as_deref()),
            (*json, *etcd),
            "{given:?}"
        );
        let mut taken = vec![args.first];
        taken.extend(args.others);
        assert_eq!(taken, *operands, "{given:?}");
    }
}
