//! Links in pages that come through a proxy: what begins at the other end's root begins at the
//! proxy's path for who reads the page.

/// The attributes that are links.
const LINKS: [&str; 10] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "src",
    "usemap",
];

/// A link, with `prefix` before a path that begins at the root.
pub(super) fn rewritten(link: &str, prefix: &str) -> String {
    let is_rooted = link.starts_with('/') && !link.starts_with("//");
    let is_there =
        link.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if is_rooted && !is_there { format!("{prefix}{link}") } else { link.to_owned() }
}

/// A page with its links rewritten. Only tags are looked into, and of them only quoted values.
pub(super) fn rewrite(page: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        let comment = tag.starts_with("<!--").then(|| tag.find("-->")).flatten();
        let end = comment.map(|end| end + 3).or_else(|| end_of_tag(tag));
        let Some(end) = end else {
            out.push_str(tag);
            return out;
        };
        let (tag, after) = tag.split_at(end);
        if comment.is_some() {
            out.push_str(tag);
        } else {
            rewrite_tag(&mut out, tag, prefix);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where a tag ends: at the first `>` that is not within quotes.
fn end_of_tag(tag: &str) -> Option<usize> {
    let mut quote = None;
    for (place, letter) in tag.char_indices() {
        match (quote, letter) {
            (None, '>') => return Some(place + 1),
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), letter) if letter == open => quote = None,
            _ => {}
        }
    }
    None
}

fn rewrite_tag(out: &mut String, tag: &str, prefix: &str) {
    let mut rest = tag;
    while let Some(equals) = rest.find('=') {
        let name = rest[..equals].trim_end();
        let name = &name
            [name.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '-').map_or(0, |at| at + 1)..];
        let is_link = LINKS.iter().any(|link| name.eq_ignore_ascii_case(link));
        let value = &rest[equals + 1..];
        let spaces = value.len() - value.trim_start().len();
        let quote = value[spaces..].chars().next().filter(|quote| matches!(quote, '"' | '\''));
        let Some(quote) = quote else {
            out.push_str(&rest[..=equals]);
            rest = value;
            continue;
        };
        let open = equals + 1 + spaces + 1;
        let close = rest[open..].find(quote).map_or(rest.len(), |close| open + close);
        out.push_str(&rest[..open]);
        let inner = &rest[open..close];
        if is_link {
            out.push_str(&rewritten(inner, prefix));
        } else {
            out.push_str(inner);
        }
        rest = &rest[close..];
        if let Some(after) = rest.strip_prefix(quote) {
            out.push(quote);
            rest = after;
        }
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_root_lead_through_the_proxy() {
        let table = [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/rewriteme">test</a>"#),
            (r#"<img src='/x.png' alt="/y">"#, r#"<img src='/p/x.png' alt="/y">"#),
            (r#"<a href="there">"#, r#"<a href="there">"#),
            (r#"<a href="https://else.where/x">"#, r#"<a href="https://else.where/x">"#),
            (r#"<a href="//else.where/x">"#, r#"<a href="//else.where/x">"#),
            (r#"<a href="/p/x">"#, r#"<a href="/p/x">"#),
            ("a < b, href=\"/x\" and <b", "a < b, href=\"/x\" and <b"),
            ("<!-- <a href=\"/x\"> -->", "<!-- <a href=\"/x\"> -->"),
            ("<a disabled href = \"/ä\">ö", "<a disabled href = \"/p/ä\">ö"),
            ("<a href=/x>", "<a href=/x>"),
        ];
        for (page, expected) in table {
            assert_eq!(rewrite(page, "/p"), expected);
        }
    }
}
