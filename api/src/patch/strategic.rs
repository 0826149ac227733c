//! Strategic merge patch: maps are merged, lists as their type says.
//!
//! | directive | where | what |
//! |---|---|---|
//! | `$patch: delete` | in a map | the map becomes empty; in a list element: the element goes |
//! | `$patch: replace` | in a map | the map is replaced; in a list element: the list is |
//! | `$patch: merge` | anywhere | what happens without it |
//! | `$retainKeys: [k]` | in a map | other keys go |
//! | `$setElementOrder/x: […]` | beside a list `x` | the order of its elements |
//! | `$deleteFromPrimitiveList/x: […]` | beside a list `x` | these scalars go |

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{Identity, order};
use crate::schema::{Field, Shape, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// What is known of the place where the merge is.
#[derive(Clone, Copy)]
enum Place {
    /// An object of this type.
    Struct(&'static Type),
    /// A map whose values have this shape.
    Map(&'static Shape),
    /// Nothing is known.
    Unknown,
}

impl Place {
    fn of(shape: &'static Shape) -> Self {
        match shape {
            Shape::Message(id) => Self::Struct(id.get()),
            Shape::Map(inner) => Self::Map(inner),
            _ => Self::Unknown,
        }
    }

    fn field(self, name: &str) -> Option<&'static Field> {
        match self {
            Self::Struct(schema) => schema.field(name),
            Self::Map(_) | Self::Unknown => None,
        }
    }

    fn below(self, name: &str) -> Self {
        match self {
            Self::Struct(schema) => {
                schema.field(name).map_or(Self::Unknown, |field| Self::of(&field.shape))
            }
            Self::Map(inner) => Self::of(inner),
            Self::Unknown => Self::Unknown,
        }
    }

    /// Whether the list `name` is merged, and by which key its maps are told apart.
    fn list(self, name: &str) -> Option<ListRule> {
        let field = self.field(name).filter(|field| field.patch.merge)?;
        let Shape::List(inner) = &field.shape else { return None };
        Some(ListRule { key: field.merge_key, element: Self::of(inner) })
    }
}

#[derive(Clone, Copy)]
struct ListRule {
    key: Option<&'static str>,
    element: Place,
}

/// The object after the patch.
pub(super) fn apply(
    current: &Value,
    patch: &Value,
    schema: Option<&'static Type>,
) -> Result<Value, PatchError> {
    let (Some(current), Some(patch)) = (current.as_object(), patch.as_object()) else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    let place = schema.map_or(Place::Unknown, Place::Struct);
    let mut merge = Merge { path: String::new() };
    merge.map(current.clone(), patch.clone(), place).map(Value::Object)
}

/// The merge, and where in the object it is: errors name the field.
struct Merge {
    path: String,
}

impl Merge {
    fn at<T>(
        &mut self,
        step: &str,
        act: impl FnOnce(&mut Self) -> Result<T, PatchError>,
    ) -> Result<T, PatchError> {
        let end = self.path.len();
        if end > 0 {
            self.path.push('.');
        }
        self.path.push_str(step);
        let done = act(self)?;
        self.path.truncate(end);
        Ok(done)
    }

    fn malformed<T>(&self, why: &str) -> Result<T, PatchError> {
        let path = if self.path.is_empty() { "the object" } else { &self.path };
        Err(PatchError::Malformed(format!("invalid strategic merge patch at {path}: {why}")))
    }

    fn map(
        &mut self,
        mut current: Object,
        mut patch: Object,
        place: Place,
    ) -> Result<Object, PatchError> {
        match patch.remove(PATCH) {
            None => {}
            Some(Value::String(directive)) => match directive.as_str() {
                "replace" => return Ok(drop_directives_of(patch)),
                "delete" => return Ok(Object::new()),
                "merge" => {}
                other => return self.malformed(&format!("unknown patch type {other:?}")),
            },
            Some(_) => return self.malformed("$patch must be a string"),
        }
        self.retain_keys(&mut current, &mut patch)?;
        self.ordered_lists(&mut current, &mut patch, place)?;
        for (key, value) in patch {
            if let Some(list) = key.strip_prefix(DELETE_FROM) {
                self.at(list, |merge| merge.delete_from(&mut current, list, &value))?;
            } else {
                self.at(&key, |merge| merge.field(&mut current, &key, value, place))?;
            }
        }
        Ok(current)
    }

    fn field(
        &mut self,
        current: &mut Object,
        key: &str,
        patch: Value,
        place: Place,
    ) -> Result<(), PatchError> {
        let merged = match (current.remove(key), patch) {
            (_, Value::Null) => return Ok(()),
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(self.map(old, new, place.below(key))?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => match place.list(key) {
                Some(rule) => Value::Array(self.list(old, new, rule)?),
                None => Value::Array(new),
            },
            (_, patch) => drop_directives(patch),
        };
        current.insert(key.to_owned(), merged);
        Ok(())
    }

    /// Removes what the patch does not retain.
    fn retain_keys(&self, current: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
        let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
        let Some(retained) = retained.as_array() else {
            return self.malformed("$retainKeys must be a list of strings");
        };
        let is_retained = |key: &str| retained.iter().any(|r| r.as_str() == Some(key));
        for (key, value) in patch.iter() {
            if !value.is_null() && !key.starts_with('$') && !is_retained(key) {
                return self.malformed(&format!("{key:?} is set but not in $retainKeys"));
            }
        }
        current.retain(|key, _| is_retained(key));
        Ok(())
    }

    /// Takes each `$setElementOrder/x` with its list `x` out of the patch and into the object.
    fn ordered_lists(
        &mut self,
        current: &mut Object,
        patch: &mut Object,
        place: Place,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> =
            patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
        for directive in directives {
            let wanted = patch.remove(&directive);
            let key = &directive[SET_ORDER.len()..];
            let new = patch.remove(key);
            self.at(key, |merge| match (wanted, new) {
                (_, Some(Value::Null)) => {
                    current.remove(key);
                    Ok(())
                }
                (Some(Value::Array(wanted)), new @ (None | Some(Value::Array(_)))) => {
                    merge.ordered_list(current, key, &wanted, new, place)
                }
                _ => merge.malformed("$setElementOrder needs a list, and orders a list"),
            })?;
        }
        Ok(())
    }

    fn ordered_list(
        &mut self,
        current: &mut Object,
        key: &str,
        wanted: &[Value],
        new: Option<Value>,
        place: Place,
    ) -> Result<(), PatchError> {
        let Some(rule) = place.list(key) else {
            return self.malformed("$setElementOrder orders lists that are merged; this is not");
        };
        let identity = rule.key.map_or(Identity::Value, Identity::Key);
        self.must_agree(wanted, new.as_ref(), identity)?;
        let live = match current.get(key) {
            Some(Value::Array(live)) => live.clone(),
            _ => Vec::new(),
        };
        let merged = match (current.remove(key), new) {
            (None, None) => return Ok(()),
            (Some(Value::Array(old)), Some(Value::Array(new))) => self.list(old, new, rule)?,
            (Some(Value::Array(old)), _) => old,
            (_, new) => match new.map(drop_directives) {
                Some(Value::Array(new)) => new,
                _ => Vec::new(),
            },
        };
        let ordered = order(merged, wanted, &live, identity);
        current.insert(key.to_owned(), Value::Array(ordered));
        Ok(())
    }

    /// Every element that the patch sets must have a place in the order.
    fn must_agree(
        &self,
        wanted: &[Value],
        new: Option<&Value>,
        identity: Identity<'_>,
    ) -> Result<(), PatchError> {
        let elements = new.and_then(Value::as_array).into_iter().flatten();
        for element in elements.filter(|element| element.get(PATCH).is_none()) {
            if identity.position(wanted, element).is_none() {
                return self.malformed("the patch's list and its $setElementOrder do not match");
            }
        }
        Ok(())
    }

    fn delete_from(&self, current: &mut Object, key: &str, gone: &Value) -> Result<(), PatchError> {
        let Some(gone) = gone.as_array() else {
            return self.malformed("$deleteFromPrimitiveList must be a list");
        };
        if let Some(Value::Array(list)) = current.get_mut(key) {
            list.retain(|element| !gone.contains(element));
        }
        Ok(())
    }

    fn list(
        &mut self,
        old: Vec<Value>,
        new: Vec<Value>,
        rule: ListRule,
    ) -> Result<Vec<Value>, PatchError> {
        let maps = old.iter().chain(&new).filter(|element| element.is_object()).count();
        match rule.key {
            _ if maps == 0 => Ok(merge_scalars(old, new)),
            _ if maps < old.len() + new.len() => {
                self.malformed("a list must not have both maps and other values")
            }
            None => self.malformed("a list of maps without a merge key cannot be merged"),
            Some(key) => self.list_of_maps(old, new, key, rule.element),
        }
    }

    fn list_of_maps(
        &mut self,
        old: Vec<Value>,
        new: Vec<Value>,
        key: &'static str,
        element: Place,
    ) -> Result<Vec<Value>, PatchError> {
        let (mut merged, new) = self.directives_of_elements(old, new, key)?;
        let live = merged.clone();
        let wanted = new.clone();
        for value in new {
            let Value::Object(patch) = value else { continue };
            let Some(name) = patch.get(key).cloned() else { return self.no_merge_key(key) };
            let found = merged.iter_mut().find(|old| old.get(key) == Some(&name));
            if let Some(Value::Object(old)) = found {
                let step = format!("[{key}={name}]");
                *old = self.at(&step, |merge| merge.map(std::mem::take(old), patch, element))?;
            } else {
                merged.push(drop_directives(Value::Object(patch)));
            }
        }
        Ok(order(merged, &wanted, &live, Identity::Key(key)))
    }

    fn no_merge_key<T>(&self, key: &str) -> Result<T, PatchError> {
        self.malformed(&format!("map does not contain declared merge key: {key}"))
    }

    /// Carries out `$patch` in elements; returns the list it leaves and the elements to merge.
    fn directives_of_elements(
        &self,
        mut old: Vec<Value>,
        new: Vec<Value>,
        key: &str,
    ) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
        let mut plain = Vec::with_capacity(new.len());
        let mut replace = false;
        for mut element in new {
            match element.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
                None => plain.push(element),
                Some("delete") => match element.get(key) {
                    Some(name) => old.retain(|old| old.get(key) != Some(name)),
                    None => return self.no_merge_key(key),
                },
                Some("replace") => replace = true,
                Some("merge") => {
                    element.as_object_mut().map(|element| element.remove(PATCH));
                    plain.push(element);
                }
                Some(other) => return self.malformed(&format!("unknown patch type {other:?}")),
            }
        }
        if replace {
            let all = plain.into_iter().map(drop_directives).collect();
            return Ok((all, Vec::new()));
        }
        Ok((old, plain))
    }
}

/// A list of scalars with those of the patch added, each once.
fn merge_scalars(old: Vec<Value>, new: Vec<Value>) -> Vec<Value> {
    let live = old.clone();
    let wanted = new.clone();
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
    for value in old.into_iter().chain(new) {
        if !merged.contains(&value) {
            merged.push(value);
        }
    }
    order(merged, &wanted, &live, Identity::Value)
}

/// A value of the patch that has nothing to be merged with: without directives and nulls.
fn drop_directives(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(drop_directives_of(map)),
        Value::Array(list) => Value::Array(
            list.into_iter()
                .filter(|element| {
                    !matches!(
                        element.get(PATCH).and_then(Value::as_str),
                        Some("delete" | "replace")
                    )
                })
                .map(drop_directives)
                .collect(),
        ),
        scalar => scalar,
    }
}

fn drop_directives_of(map: Object) -> Object {
    map.into_iter()
        .filter(|(key, value)| !value.is_null() && !is_directive(key))
        .map(|(key, value)| (key, drop_directives(value)))
        .collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}
