//! A report: the page as one file with a run's data in it, which asks nobody.

use super::board::Shown;
use super::door;
use super::status::Document;
use crate::instance::api::page::Page;
use serde::Serialize;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// So many documents are kept, a second apart: the page's charts show no more.
const DOCUMENTS_MAX: usize = 301;

/// See the module.
pub struct Report {
    path: PathBuf,
    documents: VecDeque<Document>,
}

#[derive(Serialize)]
struct Run<'a> {
    documents: &'a VecDeque<Document>,
}

impl Report {
    /// # Errors
    /// If the file cannot be written; one that is there stays as it is.
    pub fn to(path: &Path) -> Result<Report, String> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Report { path: path.to_owned(), documents: VecDeque::new() })
    }

    /// One more document of the run; its log is not kept.
    pub fn add(&mut self, document: &Document) {
        let mut document = document.clone();
        document.instances.iter_mut().for_each(|it| it.log.clear());
        if self.documents.len() == DOCUMENTS_MAX {
            self.documents.pop_front();
        }
        self.documents.push_back(document);
    }

    /// Writes it, with the last document as it is.
    ///
    /// # Errors
    /// If it cannot be written, with the reason.
    pub fn finish(mut self, mut last: Document, shown: Option<Shown>) -> Result<PathBuf, String> {
        last.demo = shown;
        self.documents.push_back(last);
        let text = write(&Run { documents: &self.documents })?;
        std::fs::write(&self.path, text)
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        Ok(self.path)
    }
}

fn write(run: &Run<'_>) -> Result<String, String> {
    let data = sonic_rs::to_string(run).map_err(|error| format!("no report: {error}"))?;
    // In HTML nothing but this could end the data.
    let data = data.replace('<', "\\u003c");
    let more = door::MORE;
    Ok(Page::file(&format!("{more}<script type=\"application/json\" id=\"run\">{data}</script>")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::whereabouts::Whereabouts;
    use crate::tools::demo::status::Verdict;

    #[test]
    fn the_data_cannot_end_its_script_and_old_documents_go() {
        let document = Document {
            version: 2,
            at: String::new(),
            verdict: Verdict { level: "green".into(), text: "</script><b>&".into() },
            whereabouts: Whereabouts::default(),
            instances: Vec::new(),
            demo: None,
        };
        let mut report = Report { path: PathBuf::new(), documents: VecDeque::new() };
        for _ in 0..DOCUMENTS_MAX + 3 {
            report.add(&document);
        }
        assert_eq!(report.documents.len(), DOCUMENTS_MAX);
        let file = write(&Run { documents: &report.documents }).unwrap();
        assert!(file.contains("\\u003c/script>\\u003cb>&") && !file.contains("</script><b>"));
    }
}
