//! The parts of a Rust file that the checks need: its tokens, functions, types and paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The target that a file is compiled for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A library or a binary.
    Production,
    /// Tests, examples and fuzz targets.
    Test,
    /// A build script.
    Build,
}

/// One Rust file.
#[derive(Debug)]
pub struct RustFile {
    /// Its path relative to the root of the repository.
    pub path: String,
    /// The target that it is compiled for.
    pub kind: Kind,
    /// Each identifier with its line.
    pub identifiers: Vec<(String, usize)>,
    /// Each string literal with its line. Doc comments are not among them.
    pub strings: Vec<(String, usize)>,
    /// Each path such as `std::fs::read` with its line. Names that the file imports are expanded.
    pub paths: Vec<(String, usize)>,
    /// The line of each `select!`, and whether it begins with `biased;`.
    pub selects: Vec<(usize, bool)>,
    /// Functions that have a body.
    pub functions: Vec<Function>,
    /// Modules that it declares and that have their own files.
    pub modules: Vec<Module>,
    /// Names of the types and traits that it defines.
    pub types: Vec<String>,
    /// Pairs of a type and one of its functions, constants, fields or variants.
    pub members: Vec<(String, String)>,
    /// First and last line of each item that is compiled only for tests.
    test_items: Vec<(usize, usize)>,
}

/// A function that has a body.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// Its lines, from `fn` to the closing brace.
    pub lines: usize,
}

/// A declaration of a module without a body.
#[derive(Debug)]
pub struct Module {
    name: String,
    /// Whether it is compiled only for tests.
    pub is_test: bool,
    path: Option<String>,
    /// The inline modules around the declaration.
    within: Vec<String>,
}

/// Collects the parts that require the syntax tree.
struct Collector<'a> {
    file: &'a mut RustFile,
    imports: BTreeMap<String, String>,
    within: Vec<String>,
}

// === impl RustFile ===

impl RustFile {
    /// Analyses a file.
    ///
    /// # Errors
    /// It is not valid Rust.
    pub fn parse(path: &str, text: &str) -> Result<Self, String> {
        let tokens: TokenStream =
            text.parse().map_err(|error| format!("{path} cannot be read as Rust: {error}"))?;
        let tree: syn::File = syn::parse2(tokens.clone())
            .map_err(|error| format!("{path} cannot be parsed as Rust: {error}"))?;
        let mut file = Self {
            path: path.to_owned(),
            kind: kind_of(path),
            identifiers: Vec::new(),
            strings: Vec::new(),
            paths: Vec::new(),
            selects: Vec::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            types: Vec::new(),
            members: Vec::new(),
            test_items: Vec::new(),
        };
        if is_for_tests(&tree.attrs) {
            file.kind = Kind::Test;
        }
        let mut collector =
            Collector { file: &mut file, imports: BTreeMap::new(), within: Vec::new() };
        collector.visit_file(&tree);
        let imports = collector.imports;
        file.read_tokens(tokens);
        for (path, _) in &mut file.paths {
            let (first, rest) = path.split_once("::").unwrap_or((path, ""));
            if let Some(whole) = imports.get(first)
                && !rest.is_empty()
            {
                *path = format!("{whole}::{rest}");
            }
        }
        Ok(file)
    }

    /// Whether this line is compiled only for tests.
    #[must_use]
    pub fn is_test(&self, line: usize) -> bool {
        self.kind == Kind::Test
            || self.test_items.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// The path of a module that this file declares: a file, or a directory without `.rs`.
    #[must_use]
    pub fn module_path(&self, module: &Module) -> PathBuf {
        let path = Path::new(&self.path);
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(named) = &module.path {
            return folder.join(named);
        }
        let stem = path.file_stem().unwrap_or_default();
        let is_root = ["mod", "lib", "main"].iter().any(|root| stem == *root);
        let mut folder = if is_root { folder.to_owned() } else { folder.join(stem) };
        folder.extend(&module.within);
        folder.join(&module.name)
    }

    /// Collects identifiers, strings, paths and `select!`s, including those inside macros.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut path_line = 0;
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let line = token.span().start().line;
            match token {
                TokenTree::Ident(ident) => {
                    let name = ident.to_string();
                    if path.is_empty() {
                        path_line = line;
                    }
                    path.push(name.clone());
                    self.identifiers.push((name, line));
                    if is_path_separator(&mut tokens) {
                        continue;
                    }
                    if path.len() > 1 {
                        self.paths.push((path.join("::"), path_line));
                    }
                    let is_select = path.last().is_some_and(|name| name == "select");
                    path.clear();
                    if is_select && is_punct(tokens.peek(), '!') {
                        tokens.next();
                        if let Some(TokenTree::Group(group)) = tokens.peek() {
                            self.selects.push((line, is_biased(group.stream())));
                        }
                    }
                }
                TokenTree::Literal(literal) => {
                    if let syn::Lit::Str(text) = syn::Lit::new(literal) {
                        self.strings.push((text.value(), line));
                    }
                }
                TokenTree::Group(group) => {
                    path.clear();
                    // `#[doc = "…"]` is the form in which doc comments appear here.
                    let is_doc = group.delimiter() == Delimiter::Bracket
                        && matches!(group.stream().into_iter().next(),
                            Some(TokenTree::Ident(name)) if name == "doc");
                    if !is_doc {
                        self.read_tokens(group.stream());
                    }
                }
                TokenTree::Punct(_) => path.clear(),
            }
        }
    }
}

fn kind_of(path: &str) -> Kind {
    let mut folders = path.split('/');
    if path.ends_with("/build.rs") {
        Kind::Build
    } else if path.starts_with("fuzz/")
        || folders.any(|name| matches!(name, "tests" | "examples" | "benches"))
    {
        Kind::Test
    } else {
        Kind::Production
    }
}

/// Consumes `::` if it comes next. Returns whether a name follows it.
fn is_path_separator(
    tokens: &mut std::iter::Peekable<proc_macro2::token_stream::IntoIter>,
) -> bool {
    if !is_punct(tokens.peek(), ':') {
        return false;
    }
    tokens.next();
    if !is_punct(tokens.peek(), ':') {
        return false;
    }
    tokens.next();
    matches!(tokens.peek(), Some(TokenTree::Ident(_)))
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_biased(tokens: TokenStream) -> bool {
    let mut tokens = tokens.into_iter();
    matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "biased")
        && is_punct(tokens.next().as_ref(), ';')
}

/// Whether an attribute is `cfg(test)`, `cfg(all(test, …))` or `test`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path.segments.last().is_some_and(|last| last.ident == "test") {
            return true;
        }
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        path.is_ident("cfg") && needs_test(list.tokens.clone())
    })
}

fn needs_test(condition: TokenStream) -> bool {
    let mut tokens = condition.into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Ident(name)), None) => name == "test",
        (Some(TokenTree::Ident(name)), Some(TokenTree::Group(group))) if name == "all" => group
            .stream()
            .into_iter()
            .any(|token| matches!(token, TokenTree::Ident(name) if name == "test")),
        _ => false,
    }
}

fn attributes_of(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

// === impl Collector ===

impl Collector<'_> {
    fn add_test_item(&mut self, item: &impl Spanned) {
        let span = item.span();
        self.file.test_items.push((span.start().line, span.end().line));
    }

    fn add_function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.span().start().line, block.span().end().line);
        let name = signature.ident.to_string();
        self.file.functions.push(Function { name, line: first, lines: last - first + 1 });
    }

    fn add_type(&mut self, name: &syn::Ident) {
        self.file.types.push(name.to_string());
    }

    fn add_member(&mut self, of: &str, name: &syn::Ident) {
        self.file.members.push((of.to_owned(), name.to_string()));
    }

    fn add_import(&mut self, prefix: &str, tree: &syn::UseTree) {
        let join = |name: &syn::Ident| match prefix {
            "" => name.to_string(),
            prefix => format!("{prefix}::{name}"),
        };
        let (alias, whole, ident) = match tree {
            syn::UseTree::Path(path) => return self.add_import(&join(&path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|item| self.add_import(prefix, item));
            }
            syn::UseTree::Glob(glob) => {
                let line = glob.span().start().line;
                return self.file.paths.push((prefix.to_owned(), line));
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                let last = prefix.rsplit("::").next().unwrap_or(prefix);
                (last.to_owned(), prefix.to_owned(), &name.ident)
            }
            syn::UseTree::Name(name) => (name.ident.to_string(), join(&name.ident), &name.ident),
            syn::UseTree::Rename(name) => (name.rename.to_string(), join(&name.ident), &name.ident),
        };
        self.file.paths.push((whole.clone(), ident.span().start().line));
        self.imports.insert(alias, whole);
    }

    fn add_fields(&mut self, of: &str, fields: &syn::Fields) {
        for field in fields {
            if let Some(name) = &field.ident {
                self.add_member(of, name);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_for_tests(attributes_of(item)) {
            self.add_test_item(item);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add_function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty
            && let Some(last) = path.path.segments.last()
        {
            let of = last.ident.to_string();
            for member in &item.items {
                match member {
                    syn::ImplItem::Fn(function) => self.add_member(&of, &function.sig.ident),
                    syn::ImplItem::Const(constant) => self.add_member(&of, &constant.ident),
                    syn::ImplItem::Type(alias) => self.add_member(&of, &alias.ident),
                    _ => {}
                }
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_for_tests(&item.attrs) {
            self.add_test_item(item);
        }
        self.add_function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add_function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add_type(&item.ident);
        for member in &item.items {
            if let syn::TraitItem::Fn(function) = member {
                self.add_member(&item.ident.to_string(), &function.sig.ident);
            }
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add_type(&item.ident);
        self.add_fields(&item.ident.to_string(), &item.fields);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add_type(&item.ident);
        for variant in &item.variants {
            self.add_member(&item.ident.to_string(), &variant.ident);
        }
        visit::visit_item_enum(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add_type(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_import("", &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        if item.content.is_none() {
            let is_test = is_for_tests(&item.attrs);
            let path = item.attrs.iter().find_map(path_attribute);
            let within = self.within.clone();
            self.file.modules.push(Module { name, is_test, path, within });
            return;
        }
        self.within.push(name);
        visit::visit_item_mod(self, item);
        self.within.pop();
    }
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RustFile {
        RustFile::parse("a/src/lib.rs", text).unwrap()
    }

    #[test]
    fn imported_names_are_replaced_in_paths() {
        let file = parse(
            "use std::{fs, thread::{self, sleep as nap}};\n\
             fn f() { fs::read(1); thread::spawn(2); assert!(tokio::fs::write(3)); nap(4); }\n",
        );
        let paths: Vec<_> = file.paths.iter().map(|(path, _)| path.as_str()).collect();
        for wanted in [
            "std::fs",
            "std::fs::read",
            "std::thread::spawn",
            "tokio::fs::write",
            "std::thread::sleep",
        ] {
            assert!(paths.contains(&wanted), "{wanted} in {paths:?}");
        }
    }

    #[test]
    fn a_select_is_found_within_other_macros() {
        let file = parse("fn f() { m! { tokio::select! { biased; a => b } }; select! { c => d } }");
        assert_eq!(file.selects, [(1, true), (1, false)]);
    }

    #[test]
    fn functions_members_and_tests_are_found() {
        let file = parse(
            "/// not a string\nstruct A { b: u8 }\nimpl A {\n    fn c(\n    ) {\n\
                     \"d\";\n    }\n}\n\
             #[cfg(all(test, unix))]\nmod tests {\n    fn e() {}\n}\n",
        );
        let of_a = |name: &str| ("A".to_owned(), name.to_owned());
        assert_eq!(file.members, [of_a("b"), of_a("c")]);
        assert_eq!(file.strings, [("d".to_owned(), 6)]);
        let functions: Vec<_> =
            file.functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(functions, [("c", 4, 4), ("e", 11, 1)]);
        assert!(file.is_test(11) && !file.is_test(4));
    }
}
