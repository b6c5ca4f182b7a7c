//! The table of `.ci/planted` and the list of breakages are of the same breakages, every suite has
//! two of them, and each has two suites or a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{source, tests_in};

/// Suites in which fewer than two breakages can be planted, and why.
const EXCEPTED: &[(&str, &str)] = &[
    (
        "documents",
        "it reads the documents, and nothing of the engine runs in it",
    ),
    (
        "command::streams",
        "its one test moves a gibibyte twice, which takes too long to be done under several breakages",
    ),
    (
        "golden",
        "its stores are as an earlier version left them, and most breakages change nothing of what they show",
    ),
    (
        "sealing",
        "the second of its two tests can only hang, and a test that hangs has not noticed anything",
    ),
];

/// Breakages that one suite alone has to notice, and why none of the others would.
const OF_ONE_SUITE: &[(&str, &[&str])] = &[
    (
        "it is done by one command of the program, or in one place of the server, and one suite tests that",
        &[
            "StopAtWrong",
            "IgnoreSignals",
            "GoOnAfterFailure",
            "RememberSignal",
            "ImportAnotherInput",
            "ImportCutOff",
            "ImportIntoOlderCopy",
            "ImportOverPresent",
            "ResumeAnotherExport",
            "AcceptLargeValues",
            "AnyBodyMemory",
            "AnyConnections",
            "EndAtEmptyPage",
            "ListNoText",
            "DropRequests",
        ],
    ),
    (
        "one call of the library is about it, and one suite tests that call",
        &[
            "CreateBesideOthers",
            "LimitDeletes",
            "CreateOverSegments",
            "BuildOverStore",
            "SkipCopySync",
            "InspectTrustsSections",
            "SalvageByStranger",
            "SalvageDropped",
            "SalvageLock",
            "SalvageTorn",
            "SalvageUnlisted",
            "VerifyPassesSeals",
            "VerifyTakesDamageForTorn",
        ],
    ),
    (
        "it takes two threads at one moment, which only a test that holds one of them brings about",
        &[
            "BatchInSteps",
            "TornLook",
            "ClaimUnsynced",
            "ForgetTakenOut",
            "ForgetHintsInHand",
            "SkipRollbackCheck",
            "ForgetPending",
        ],
    ),
    (
        "it takes another process, or a directory that is changed under the store, and one suite has those",
        &[
            "ServeForkedChild",
            "UnlockInChild",
            "WriteIntoRemoved",
            "CreateBesideStranger",
            "IndexBesideStranger",
            "PublishBesideStranger",
            "UnreadableIsAbsent",
        ],
    ),
    (
        "another check notices the same first, and the one test takes that away: the checksum of the manifest covers the store and its \
         generation, a sync that failed anywhere in the directory is remembered, counters assert that nothing dies twice",
        &[
            "IgnoreIndexStore",
            "IgnoreIndexGeneration",
            "IgnoreIndexCounts",
            "SyncAgainAfterFailure",
        ],
    ),
    (
        "no index file is there that a program has written which hashes in another way",
        &["IgnoreHashProbe"],
    ),
    (
        "the devices of the other suites do not fail in this way: in a commit of the journal, or at a close",
        &["BelieveSyncs", "AskJournalOnce", "ForgetFailedClose"],
    ),
    (
        "it costs time, memory or disk and nothing else, and one suite measures that",
        &[
            "PickWhatStays",
            "SweepAtOnce",
            "KeepWrongIndexFile",
            "KeepDamagedForGood",
            "FailOnDoubt",
            "IgnoreRate",
            "DeletesTakeAll",
            "PileUp",
        ],
    ),
    (
        "it takes damage or a failure in one certain place before something else goes wrong, which chance does not find",
        &[
            "ForgetMark",
            "ForgetUnrecovered",
            "IgnoreSeals",
            "SkipSequenceGap",
            "CompactBesideDamage",
            "SalvageInAnyOrder",
            "CountTakenBack",
            "RunPendingAgain",
        ],
    ),
];

/// Rows of the table: breakage, suite, test. Settings, if there are any, come behind.
fn rows(table: &str) -> Vec<[&str; 3]> {
    let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let mut words = row.split_whitespace();
        let named = [(); 3].map(|()| words.next().unwrap_or_else(|| panic!("not a row of the table: {row}")));
        assert!(words.all(is_setting), "behind the test come settings: {row}");
        named
    })
    .collect()
}

fn is_setting(word: &str) -> bool {
    let setting = word.split_once('=');
    setting.is_some_and(|(name, value)| {
        let is_ours = name.starts_with("EMBERCASK_") || name == "PROPTEST_RNG_SEED";
        is_ours && !value.is_empty()
    })
}

/// All Rust files in a directory and below.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Names of the tests in these files.
fn tests_of(files: &[PathBuf]) -> BTreeSet<String> {
    let names = |file: &PathBuf| -> Vec<String> { tests_in(&source(file)).into_iter().map(str::to_owned).collect() };
    files.iter().flat_map(names).collect()
}

/// The breakages that a list declares.
fn breakages(list: &Path) -> BTreeSet<String> {
    let text = source(list);
    let (_, list) = text.split_once("\nbreakages! {\n").expect("the list of breakages");
    let lines = list.lines().take_while(|line| *line != "}").map(str::trim);
    let names = lines.filter_map(|line| line.strip_suffix(',').filter(|name| !name.contains(' ')));
    names.map(str::to_owned).collect()
}

/// The name of a suite in this file or directory.
fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// The suite that is this file, or a directory with a `mod.rs`.
fn suite(path: &Path) -> Option<(String, BTreeSet<String>)> {
    let files = match path.join("mod.rs").exists() {
        true => sources(path),
        false if path.extension().is_some_and(|extension| extension == "rs") => vec![path.to_owned()],
        false => return None,
    };
    Some((name(path), tests_of(&files)))
}

/// Suites by name: each test target of the engine, but the modules of one that has no tests in its
/// `main.rs`; each module of the command's; and the tests in the source of both.
fn suites() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut suites = BTreeMap::new();
    for entry in std::fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let main = path.join("main.rs");
        if !main.exists() {
            suites.extend(suite(&path));
        } else if tests_in(&source(&main)).is_empty() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let path = entry.unwrap().path();
                let Some((name, tests)) = suite(&path).filter(|_| path != main) else {
                    continue;
                };
                assert!(
                    suites.insert(name, tests).is_none(),
                    "two suites have the name of {}",
                    path.display()
                );
            }
        } else {
            suites.insert(name(&path), tests_of(&sources(&path)));
        }
    }
    for path in sources(&root.join("tests/command")) {
        let module = path.file_stem().unwrap().to_str().unwrap();
        let tests = tests_of(std::slice::from_ref(&path));
        if !tests.is_empty() {
            suites.insert(format!("command::{module}"), tests);
        }
    }
    let of_command = |path: &PathBuf| path.starts_with(root.join("src/command"));
    let (command, library): (Vec<_>, Vec<_>) = sources(&root.join("src")).into_iter().partition(of_command);
    suites.insert("lib".to_owned(), tests_of(&library));
    suites.insert("command_lib".to_owned(), tests_of(&command));
    suites
}

#[test]
fn every_breakage_is_demanded_of_a_test_that_exists_and_every_suite_has_two() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = include_str!("../../planted.table");
    let (rows, suites) = (rows(table), suites());
    let of_engine = breakages(&root.join("src/planted.rs"));
    let of_command = breakages(&root.join("src/command/planted.rs"));
    let twice: Vec<_> = of_engine.intersection(&of_command).collect();
    assert!(twice.is_empty(), "one name chooses from both lists: {twice:?}");
    let all: BTreeSet<_> = of_engine.union(&of_command).cloned().collect();
    assert!(all.len() > 150 && all.contains("SkipDataSync"), "{all:?}");
    for [breakage, suite, test] in &rows {
        assert!(
            all.contains(*breakage),
            "the table names {breakage}, which is no breakage"
        );
        let tests = suites
            .get(*suite)
            .unwrap_or_else(|| panic!("there is no suite {suite}"));
        assert!(tests.contains(*test), "{suite} has no test {test}");
    }
    let planted: BTreeSet<_> = rows.iter().map(|[breakage, ..]| (*breakage).to_owned()).collect();
    let idle: Vec<_> = all.difference(&planted).collect();
    assert!(idle.is_empty(), "demanded of no test: {idle:?}");
    let of_one_suite: BTreeSet<_> = OF_ONE_SUITE.iter().flat_map(|(_, breakages)| *breakages).collect();
    for breakage in &planted {
        let suites: BTreeSet<_> = rows
            .iter()
            .filter(|[of, ..]| of == breakage)
            .map(|[_, suite, _]| suite)
            .collect();
        assert_eq!(
            suites.len() == 1,
            of_one_suite.contains(&breakage.as_str()),
            "{breakage} is demanded of {suites:?}: of two suites, or named in OF_ONE_SUITE"
        );
    }
    for breakage in of_one_suite {
        assert!(planted.contains(*breakage), "{breakage} is no breakage");
    }
    let distinct: BTreeSet<_> = rows.iter().collect();
    assert_eq!(distinct.len(), rows.len(), "a row stands twice in the table");
    for (excepted, _) in EXCEPTED {
        assert!(suites.contains_key(*excepted), "{excepted} is excepted and is no suite");
    }
    for suite in suites.keys() {
        let demanded: BTreeSet<_> = rows
            .iter()
            .filter(|[_, of, _]| of == suite)
            .map(|[breakage, ..]| breakage)
            .collect();
        let is_excepted = EXCEPTED.iter().any(|(excepted, _)| excepted == suite);
        assert!(
            demanded.len() >= 2 || is_excepted,
            "{suite} must notice two breakages, and the table has {demanded:?}"
        );
    }
}
