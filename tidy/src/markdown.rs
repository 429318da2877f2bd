//! The parts of a Markdown document that the checks examine: code spans, links, headings, prose.

/// The parts of a document. Each part has its line, counted from 1.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Code spans outside of code blocks.
    pub(crate) spans: Vec<(String, usize)>,
    /// Targets of links and images.
    pub(crate) links: Vec<(String, usize)>,
    /// Anchors of headings, as GitHub generates them.
    pub(crate) anchors: Vec<String>,
    /// Lines of code blocks.
    pub(crate) code: Vec<(String, usize)>,
    /// Lines outside of code blocks, without code spans and targets of links.
    pub(crate) prose: Vec<(String, usize)>,
}

// === impl Document ===

impl Document {
    pub(crate) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut is_in_block = false;
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with("```") {
                is_in_block = !is_in_block;
            } else if is_in_block {
                document.code.push((line.to_owned(), number));
            } else {
                document.add_line(line, number);
            }
        }
        document
    }

    fn add_line(&mut self, line: &str, number: usize) {
        if let Some(heading) = line.strip_prefix('#') {
            let anchor = anchor_of(heading.trim_start_matches('#').trim());
            let same = self.anchors.iter().filter(|other| **other == anchor).count();
            self.anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
        }
        let mut prose = String::new();
        for (part, is_code) in line.split('`').zip([false, true].into_iter().cycle()) {
            if is_code {
                self.spans.push((part.replace("\\|", "|"), number));
                // So that the words before and after a span are not adjacent.
                prose.push_str("` `");
            } else {
                prose.push_str(part);
            }
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            let target = target.split_whitespace().next().unwrap_or("");
            self.links.push((target.to_owned(), number));
            prose = prose.replace(&format!("]({target})"), "]");
            rest = after;
        }
        self.prose.push((prose, number));
    }
}

/// The anchor that GitHub generates for a heading.
fn anchor_of(heading: &str) -> String {
    let letters = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ if letter.is_alphanumeric() => Some(letter),
        _ => None,
    });
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_falls_into_its_parts() {
        let text =
            "# The `A` of B, really\n\nsee [C](d.md#e) and `f/g.rs`\n```sh\nh `i`\n```\n# A\n# A\n";
        let document = Document::parse(text);
        let part = |text: &str, line| (text.to_owned(), line);
        assert_eq!(document.anchors, ["the-a-of-b-really", "a", "a-1"]);
        assert_eq!(document.links, [part("d.md#e", 3)]);
        assert_eq!(document.spans, [part("A", 1), part("f/g.rs", 3)]);
        assert_eq!(document.code, [part("h `i`", 5)]);
        assert_eq!(document.prose[2], part("see [C] and ` `", 3));
    }
}
