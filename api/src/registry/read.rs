//! Reading: one object, or a page of them.

use bytes::Bytes;
use kontiki_storage::kv::{Consistency, KeyRange, KeyValue, RangeRequest, RangeResponse, Revision};

use super::options::{Freshness, ListOptions, ObjectList};
use super::page::Token;
use super::strategy::Kind;
use super::{Registry, key, stored};
use crate::context::RequestContext;
use crate::object::Object;
use crate::selectors::Selection;
use crate::status::Status;

/// How many keys are read and decoded at once, where a selector decides which of them count or all
/// are wanted: others get their turn between.
const CHUNK: u64 = 500;

/// A page of objects as the store has them.
pub(crate) struct StoredList {
    /// The objects, in key order.
    pub(crate) kvs: Vec<KeyValue>,
    /// What is said of the page; without items.
    pub(crate) rest: ObjectList,
}

/// Where a list begins and at which revision it is read.
struct Start {
    /// Where the page begins.
    key: String,
    /// The revision of all pages; `None` is the latest.
    revision: Option<Revision>,
    consistency: Consistency,
}

impl Registry {
    /// Reads one object.
    pub async fn get(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Object, Status> {
        self.get_fresh(ctx, kind, namespace, name, Freshness::Latest).await
    }

    /// Reads one object as fresh as asked for.
    pub async fn get_fresh(
        &self,
        _ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Object, Status> {
        let key = key::object(kind, namespace, name);
        let found = self.read(kind, &key, consistency(freshness)).await?;
        found
            .map(|found| found.object)
            .ok_or_else(|| Status::not_found(kind.group, kind.plural, name))
    }

    /// Reads one object, not decoded, where it is shown as it is stored.
    pub(crate) async fn get_stored(
        &self,
        _ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<KeyValue>, Status> {
        if !kind.strategy.shows_as_stored() {
            return Ok(None);
        }
        let request = RangeRequest {
            consistency: consistency(freshness),
            ..RangeRequest::new(KeyRange::key(key::object(kind, namespace, name)))
        };
        let found = self.range(request).await?.kvs.pop();
        found.map(Some).ok_or_else(|| Status::not_found(kind.group, kind.plural, name))
    }

    /// Reads a page of objects.
    pub async fn list(
        &self,
        _ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let selection = Selection::parse(kind, &options.label_selector, &options.field_selector)?;
        let folder = key::folder(kind, namespace);
        let start = start(&folder, options)?;
        if let (Some(name), true) =
            (selection.single_name(), !kind.is_namespaced() || !namespace.is_empty())
        {
            return self.list_single(kind, namespace, name, &start, &selection).await;
        }
        let mut list = ObjectList::default();
        let mut next = Some(start.key.clone());
        let mut revision = start.revision;
        while let Some(from) = next.take() {
            let wanted = options.limit.saturating_sub(list.items.len() as u64);
            let limit = if options.limit == 0 { CHUNK } else { chunk(wanted, &selection) };
            let request = RangeRequest {
                revision,
                limit,
                consistency: revision.map_or(start.consistency, Consistency::NotOlderThan),
                ..RangeRequest::new(KeyRange::between(from, end_of(&folder)))
            };
            let response = self.page(request, &start, &folder, options).await?;
            let at = *revision.get_or_insert(response.revision);
            list.resource_version = at.get();
            let converted = self.of_response(kind, &response).await?;
            next = take(&mut list, &response, converted, options, &selection, &folder, at)?;
            tokio::task::yield_now().await;
        }
        Ok(list)
    }

    /// A page of objects that are shown as they are stored, not decoded; `None` of any other, and of
    /// a list of one name.
    pub(crate) async fn list_stored(
        &self,
        _ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Option<StoredList>, Status> {
        if !kind.strategy.shows_as_stored() {
            return Ok(None);
        }
        let selection = Selection::parse(kind, &options.label_selector, &options.field_selector)?;
        if selection.single_name().is_some() {
            return Ok(None);
        }
        let folder = key::folder(kind, namespace);
        let start = start(&folder, options)?;
        let mut list = StoredList { kvs: Vec::new(), rest: ObjectList::default() };
        let mut next = Some(start.key.clone());
        let mut revision = start.revision;
        while let Some(from) = next.take() {
            let wanted = options.limit.saturating_sub(list.kvs.len() as u64);
            let request = RangeRequest {
                revision,
                // What is not decoded may be read at once.
                limit: if options.limit == 0 { 0 } else { chunk(wanted, &selection) },
                consistency: revision.map_or(start.consistency, Consistency::NotOlderThan),
                ..RangeRequest::new(KeyRange::between(from, end_of(&folder)))
            };
            let response = self.page(request, &start, &folder, options).await?;
            let at = *revision.get_or_insert(response.revision);
            list.rest.resource_version = at.get();
            let Some((last, left)) = list.take(response, options.limit, &selection).await? else {
                break;
            };
            if options.limit == 0 || (list.kvs.len() as u64) < options.limit {
                next = Some(after(&last));
            } else {
                list.rest.end_page(&last, left, &selection, &folder, at);
            }
        }
        Ok(Some(list))
    }

    /// Reads the keys of a page.
    async fn page(
        &self,
        request: RangeRequest,
        start: &Start,
        folder: &str,
        options: &ListOptions,
    ) -> Result<RangeResponse, Status> {
        match self.range(request).await {
            Err(refusal) if refusal.is_expired() && !options.continue_token.is_empty() => {
                let token = Token { revision: None, start: start.key.clone() };
                Err(Status::expired_continue(token.encode(folder)))
            }
            other => other,
        }
    }

    /// The objects of a response where a webhook converts them, all at once; `None` where none does.
    async fn of_response(
        &self,
        kind: &Kind,
        response: &RangeResponse,
    ) -> Result<Option<Vec<Object>>, Status> {
        if kind.strategy.definition().is_none_or(|version| version.conversion.is_none()) {
            return Ok(None);
        }
        let objects = response.kvs.iter().map(|kv| stored::decode(kind, kv));
        self.converted(kind, objects.collect::<Result<_, _>>()?).await.map(Some)
    }

    /// The list of the one object that a field selector names.
    async fn list_single(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        start: &Start,
        selection: &Selection,
    ) -> Result<ObjectList, Status> {
        let request = RangeRequest {
            revision: start.revision,
            consistency: start.consistency,
            ..RangeRequest::new(KeyRange::key(key::object(kind, namespace, name)))
        };
        let response = self.range(request).await?;
        let revision = start.revision.unwrap_or(response.revision);
        let mut list = ObjectList { resource_version: revision.get(), ..ObjectList::default() };
        for kv in &response.kvs {
            list.items.push(stored::decode(kind, kv)?);
        }
        list.items = self.converted(kind, list.items).await?;
        list.items.retain(|object| selection.matches(object));
        Ok(list)
    }
}

/// Takes what is selected into the page. Gives the key to read on from where the page is not full
/// yet; a full page gets its token.
fn take(
    list: &mut ObjectList,
    response: &RangeResponse,
    converted: Option<Vec<Object>>,
    options: &ListOptions,
    selection: &Selection,
    folder: &str,
    revision: Revision,
) -> Result<Option<String>, Status> {
    let mut last = None;
    let mut seen = 0_u64;
    let mut converted = converted.map(Vec::into_iter);
    for kv in &response.kvs {
        let object = match converted.as_mut().and_then(Iterator::next) {
            Some(object) => object,
            None => stored::decode(selection.kind(), kv)?,
        };
        seen += 1;
        last = Some(&kv.key);
        if selection.matches(&object) {
            list.items.push(object);
            if options.limit > 0 && list.items.len() as u64 >= options.limit {
                break;
            }
        }
    }
    let left = response.count.saturating_sub(seen);
    let Some(last) = last.filter(|_| left > 0) else { return Ok(None) };
    if options.limit == 0 || (list.items.len() as u64) < options.limit {
        return Ok(Some(after(last)));
    }
    list.end_page(last, left, selection, folder, revision);
    Ok(None)
}

impl StoredList {
    /// Takes what is selected, up to the limit. Gives the last key that was looked at and how many
    /// are behind it, where there are any.
    async fn take(
        &mut self,
        response: RangeResponse,
        limit: u64,
        selection: &Selection,
    ) -> Result<Option<(Bytes, u64)>, Status> {
        if selection.is_everything() && self.kvs.is_empty() {
            let left = response.count.saturating_sub(response.kvs.len() as u64);
            self.kvs = response.kvs;
            return Ok(self.kvs.last().map(|last| (last.key.clone(), left)).filter(|_| left > 0));
        }
        let mut last = None;
        let mut seen = 0_u64;
        for kv in response.kvs {
            seen += 1;
            last = Some(kv.key.clone());
            if selection.matches(&stored::selectable(selection.kind(), &kv)?) {
                self.kvs.push(kv);
                if limit > 0 && self.kvs.len() as u64 >= limit {
                    break;
                }
            }
            if seen.is_multiple_of(CHUNK) {
                tokio::task::yield_now().await;
            }
        }
        let left = response.count.saturating_sub(seen);
        Ok(last.map(|last| (last, left)).filter(|_| left > 0))
    }
}

impl ObjectList {
    /// Says how to go on behind the last key of a full page.
    fn end_page(
        &mut self,
        last: &[u8],
        left: u64,
        selection: &Selection,
        folder: &str,
        revision: Revision,
    ) {
        let token = Token { revision: Some(revision), start: after(last) };
        self.continue_token = token.encode(folder);
        self.remaining = selection.is_everything().then_some(left);
    }
}

/// The first key after that one.
fn after(key: &[u8]) -> String {
    format!("{}\0", String::from_utf8_lossy(key))
}

fn start(folder: &str, options: &ListOptions) -> Result<Start, Status> {
    if !options.continue_token.is_empty() {
        if !matches!(options.freshness, Freshness::Latest | Freshness::Any) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(&options.continue_token, folder)?;
        let consistency = match token.revision {
            Some(revision) => Consistency::NotOlderThan(revision),
            None => Consistency::Linearizable,
        };
        return Ok(Start { key: token.start, revision: token.revision, consistency });
    }
    let revision = match options.freshness {
        Freshness::Exact(revision) => Some(Revision::new(revision)),
        _ => None,
    };
    Ok(Start { key: folder.to_owned(), revision, consistency: consistency(options.freshness) })
}

pub(super) fn consistency(freshness: Freshness) -> Consistency {
    match freshness {
        Freshness::Latest => Consistency::Linearizable,
        Freshness::Any => Consistency::Serializable,
        Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
            Consistency::NotOlderThan(Revision::new(revision))
        }
    }
}

fn chunk(wanted: u64, selection: &Selection) -> u64 {
    if selection.is_everything() { wanted } else { wanted.max(CHUNK) }
}

/// The first key after a folder, whose name ends with a slash.
fn end_of(folder: &str) -> String {
    format!("{}0", folder.trim_end_matches('/'))
}
