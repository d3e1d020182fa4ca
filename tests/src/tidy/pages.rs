//! The pages people read first exist and keep their form.

use std::fs;

use super::{assert_none, files, read, root};

#[test]
fn the_pages_of_the_house_exist() {
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/vocabulary.md",
        "deny.toml",
        ".ci/run",
    ];
    let missing: Vec<_> =
        pages.iter().filter(|page| !root().join(page).is_file()).map(ToString::to_string).collect();
    assert_none("missing", &missing);
    assert!(read("CHANGELOG.md").contains("## Unreleased"), "CHANGELOG.md needs an Unreleased section");
}

#[test]
fn decision_records_are_numbered_and_have_their_four_parts() {
    let mut found = Vec::new();
    let records = files("docs/decisions", "md");
    for (position, file) in records.iter().enumerate() {
        let name = file.file_name().unwrap().to_string_lossy();
        if !name.starts_with(&format!("{:04}-", position + 1)) {
            found.push(format!("{name}: expected number {:04}", position + 1));
        }
        let text = read(file);
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        if headings != ["Problem", "Options", "Choice", "Consequences"] {
            found.push(format!("{name}: headings are {headings:?}"));
        }
        if text.lines().count() > 70 {
            found.push(format!("{name}: longer than a page"));
        }
    }
    assert_none("a decision record: Problem, Options, Choice, Consequences, one page", &found);
    assert!(records.len() >= 9);
}

#[test]
fn every_example_has_a_document_and_says_what_it_shows() {
    let mut found = Vec::new();
    let examples = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    for example in examples.filter(|path| path.is_dir()) {
        for file in ["sluice.toml", "README.md"] {
            if !example.join(file).is_file() {
                found.push(format!("{}: no {file}", example.display()));
            }
        }
    }
    assert_none("an example is a document and a page whose commands a test runs", &found);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut found = Vec::new();
    let roots = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(Into::into);
    let pages = roots.into_iter().chain(files("docs", "md")).chain(files("examples", "md"));
    for page in pages {
        let text = read(&page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = link.split('#').next().unwrap_or(link);
            if !root().join(&page).parent().unwrap().join(target).exists() {
                found.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_none("links that lead nowhere", &found);
}
