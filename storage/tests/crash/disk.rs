//! A disk as it may be after a power cut: contents last from the sync of their file on, names from
//! that of their folder on, and of the rest some blocks and names may be there, or none.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::trace::Event;

/// What a disk writes at once.
const BLOCK_BYTES: usize = 4096;

/// A change of a file's contents.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize(u64),
}

/// A file, whatever its names are. A folder is one without contents.
#[derive(Debug, Default)]
struct Node {
    changes: Vec<Change>,
    /// So many of the changes last.
    durable: usize,
    is_folder: bool,
    bytes: u64,
}

type Names = BTreeMap<PathBuf, usize>;

/// What a sync that is under way will make last.
enum Promise {
    Contents {
        node: usize,
        changes: usize,
    },
    Names {
        folder: PathBuf,
        names: Names,
    },
    /// Of something outside of what is watched.
    Nothing,
}

/// The disk, as far as it is below one folder.
pub(super) struct Disk {
    root: PathBuf,
    nodes: Vec<Node>,
    names: Names,
    durable_names: Names,
    open: HashMap<i32, (usize, u64)>,
    promises: HashMap<u32, Promise>,
}

impl Disk {
    /// An empty one below `root`.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            names: Names::new(),
            durable_names: Names::new(),
            open: HashMap::new(),
            promises: HashMap::new(),
        }
    }

    fn add(&mut self, path: PathBuf, is_folder: bool) -> usize {
        self.nodes.push(Node { is_folder, ..Node::default() });
        self.names.insert(path, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn change(&mut self, node: usize, change: Change) {
        let node = &mut self.nodes[node];
        node.bytes = match &change {
            Change::Write { offset, bytes } => node.bytes.max(offset + bytes.len() as u64),
            Change::Resize(bytes) => *bytes,
        };
        node.changes.push(change);
    }

    /// Takes in what happened. Whether that was the end of a sync.
    pub(super) fn follow(&mut self, event: Event) -> bool {
        match event {
            Event::Open { path, descriptor, is_new, is_emptied } => {
                self.open(path, descriptor, is_new, is_emptied);
            }
            Event::Duplicate { from, to } => {
                if let Some(opened) = self.open.get(&from).copied() {
                    self.open.insert(to, opened);
                }
            }
            Event::Close { descriptor } => drop(self.open.remove(&descriptor)),
            Event::Write { descriptor, offset, bytes } => {
                if let Some((node, at)) = self.open.get(&descriptor).copied() {
                    let length = bytes.len() as u64;
                    let from = offset.unwrap_or(at);
                    self.change(node, Change::Write { offset: from, bytes });
                    if offset.is_none() {
                        self.open.insert(descriptor, (node, from + length));
                    }
                }
            }
            Event::Resize { descriptor, bytes } => {
                if let Some((node, _)) = self.open.get(&descriptor).copied() {
                    self.change(node, Change::Resize(bytes));
                }
            }
            Event::Rename { from, to } => {
                if let Some(node) = self.names.remove(&from) {
                    self.names.insert(to, node);
                }
            }
            Event::Remove { path } => drop(self.names.remove(&path)),
            Event::MakeFolder { path } => {
                if path.starts_with(&self.root) {
                    self.add(path, true);
                }
            }
            Event::SyncBegins { thread, descriptor } => {
                let promise = self.promise(descriptor);
                self.promises.insert(thread, promise);
            }
            Event::SyncEnds { thread } => return self.keep(thread),
        }
        false
    }

    fn open(&mut self, path: PathBuf, descriptor: i32, is_new: bool, is_emptied: bool) {
        self.open.remove(&descriptor);
        if !path.starts_with(&self.root) {
            return;
        }
        let node = match self.names.get(&path) {
            Some(node) => *node,
            None if path == self.root => self.add(path, true),
            None if is_new => self.add(path, false),
            None => return,
        };
        if is_emptied {
            self.change(node, Change::Resize(0));
        }
        self.open.insert(descriptor, (node, 0));
    }

    fn promise(&self, descriptor: i32) -> Promise {
        let Some((node, _)) = self.open.get(&descriptor).copied() else { return Promise::Nothing };
        if !self.nodes[node].is_folder {
            return Promise::Contents { node, changes: self.nodes[node].changes.len() };
        }
        let folder = self.names.iter().find(|(_, other)| **other == node).map(|(path, _)| path);
        let Some(folder) = folder.cloned() else { return Promise::Nothing };
        let below = self.names.iter().filter(|(path, _)| path.parent() == Some(&folder));
        let names = below.map(|(path, node)| (path.clone(), *node)).collect();
        Promise::Names { folder, names }
    }

    fn keep(&mut self, thread: u32) -> bool {
        match self.promises.remove(&thread) {
            Some(Promise::Contents { node, changes }) => {
                let node = &mut self.nodes[node];
                node.durable = node.durable.max(changes);
            }
            Some(Promise::Names { folder, names }) => {
                self.durable_names.retain(|path, _| path.parent() != Some(&folder));
                self.durable_names.extend(names);
            }
            Some(Promise::Nothing) | None => return false,
        }
        true
    }

    /// Writes what is there after a power cut now below `to`. `chance` decides of each block and
    /// each name that was not synced whether it is.
    pub(super) fn after_power_cut(&self, to: &Path, chance: &mut dyn FnMut() -> bool) {
        let mut names = self.durable_names.clone();
        for (path, node) in &self.names {
            if !names.contains_key(path) && chance() {
                names.insert(path.clone(), *node);
            }
        }
        for (path, node) in names {
            let Ok(below) = path.strip_prefix(&self.root) else { continue };
            let (to, node) = (to.join(below), &self.nodes[node]);
            // One whose folder is lost is lost as well.
            if !to.parent().is_some_and(Path::is_dir) {
                continue;
            }
            if node.is_folder {
                fs::create_dir_all(&to).unwrap();
            } else {
                fs::write(&to, node.contents(chance)).unwrap();
            }
        }
    }
}

impl Node {
    fn contents(&self, chance: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut contents = Vec::new();
        for (number, change) in self.changes.iter().enumerate() {
            match change {
                _ if number < self.durable => change.make(&mut contents),
                Change::Resize(_) if chance() => change.make(&mut contents),
                Change::Resize(_) => {}
                Change::Write { offset, bytes } => {
                    for (block, bytes) in (0..).zip(bytes.chunks(BLOCK_BYTES)) {
                        if chance() {
                            let offset = offset + block * BLOCK_BYTES as u64;
                            let bytes = bytes.to_vec();
                            Change::Write { offset, bytes }.make(&mut contents);
                        }
                    }
                }
            }
        }
        contents
    }
}

impl Change {
    fn make(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Resize(bytes) => contents.resize(usize::try_from(*bytes).unwrap(), 0),
            Self::Write { offset, bytes } => {
                let start = usize::try_from(*offset).unwrap();
                let end = start + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[start..end].copy_from_slice(bytes);
            }
        }
    }
}
