//! Server-side apply, merge patches and JSON patches on plain JSON.

use serde_json::{Map, Value};

/// Applies `config` to `object` for a field manager that applied `before` the last time. Fields of
/// `before` that are missing in `config` are removed, unless one of `others` applied them too.
/// Without `force`, a field that the manager did not apply before and that has another value is a
/// conflict. The result then contains its path.
pub(super) fn apply(
    object: &mut Value,
    before: Option<&Value>,
    config: &Value,
    others: &[&Value],
    force: bool,
) -> Result<(), String> {
    if !force && let Some(path) = conflict(object, before, config, "") {
        return Err(path);
    }
    if let Some(before) = before {
        remove_missing(object, before, config, others);
    }
    merge(object, config);
    Ok(())
}

/// Applies a merge patch (RFC 7386).
pub(super) fn merge_patch(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(name)),
            value => merge_patch(&mut object[name.as_str()], value),
        }
    }
}

/// Applies the operations of RFC 6902 that the operator uses: `test`, `add` and `remove`.
pub(super) fn json_patch(object: &mut Value, operations: &Value) -> Result<(), String> {
    for operation in operations.as_array().ok_or("no list of operations")? {
        let path = operation["path"].as_str().ok_or("no path")?;
        let (parent, name) = path.rsplit_once('/').ok_or("no parent")?;
        match operation["op"].as_str() {
            Some("test") => {
                let found = object.pointer(path).cloned().unwrap_or(Value::Null);
                if found != operation["value"] {
                    return Err(format!("test of {path} failed"));
                }
            }
            Some("add") => match object.pointer_mut(parent).ok_or("no such parent")? {
                Value::Array(list) => list.push(operation["value"].clone()),
                Value::Object(fields) => {
                    fields.insert(name.to_owned(), operation["value"].clone());
                }
                _ => return Err(format!("{parent} has no fields")),
            },
            Some("remove") => match object.pointer_mut(parent).ok_or("no such parent")? {
                Value::Array(list) => {
                    list.remove(name.parse().map_err(|_| "no index")?);
                }
                Value::Object(fields) => drop(fields.remove(name)),
                _ => return Err(format!("{parent} has no fields")),
            },
            other => return Err(format!("{other:?} is not modelled")),
        }
    }
    Ok(())
}

/// The field that identifies the elements of the list `name`, if there is one.
fn key_of(name: &str) -> Option<&'static str> {
    match name {
        "conditions" => Some("type"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn conflict(object: &Value, before: Option<&Value>, config: &Value, path: &str) -> Option<String> {
    let fields = config.as_object()?;
    fields.iter().find_map(|(name, value)| {
        let path = format!("{path}.{name}");
        let found = object.get(name)?;
        let before = before.and_then(|before| before.get(name));
        if found.is_object() && value.is_object() {
            return conflict(found, before, value, &path);
        }
        let is_identity = [".apiVersion", ".kind", ".metadata.name", ".metadata.namespace"];
        let differs = found != value && key_of(name).is_none();
        (differs && before.is_none() && !is_identity.contains(&path.as_str())).then_some(path)
    })
}

fn remove_missing(object: &mut Value, before: &Value, config: &Value, others: &[&Value]) {
    let Some(fields) = before.as_object() else { return };
    for (name, was) in fields {
        let Some(found) = object.get_mut(name) else { continue };
        let now = config.get(name);
        let of_others: Vec<&Value> = others.iter().filter_map(|other| other.get(name)).collect();
        match (key_of(name), now) {
            (Some(key), now) => {
                let empty = Vec::new();
                let now = now.and_then(Value::as_array).unwrap_or(&empty);
                let was = was.as_array().cloned().unwrap_or_default();
                let Some(list) = found.as_array_mut() else { continue };
                let has = |list: &[Value], element: &Value| {
                    list.iter().any(|other| other[key] == element[key])
                };
                list.retain(|element| !has(&was, element) || has(now, element));
            }
            (None, Some(now)) => remove_missing(found, was, now, &of_others),
            (None, None) if was.is_object() => {
                remove_missing(found, was, &Value::Object(Map::new()), &of_others);
                if found.as_object().is_some_and(Map::is_empty) && of_others.is_empty() {
                    object.as_object_mut().unwrap().remove(name);
                }
            }
            (None, None) if of_others.is_empty() => {
                object.as_object_mut().unwrap().remove(name);
            }
            (None, None) => {}
        }
    }
}

fn merge(object: &mut Value, config: &Value) {
    let Value::Object(fields) = config else {
        *object = config.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (name, value) in fields {
        match (key_of(name), object[name.as_str()].as_array_mut(), value.as_array()) {
            (Some(key), Some(found), Some(wanted)) => {
                for element in wanted {
                    match found.iter_mut().find(|other| other[key] == element[key]) {
                        Some(place) => *place = element.clone(),
                        None => found.push(element.clone()),
                    }
                }
            }
            _ => merge(&mut object[name.as_str()], value),
        }
    }
}

#[test]
fn a_field_that_is_no_longer_applied_goes_unless_another_manager_applied_it() {
    use serde_json::json;
    let mut object = json!({ "spec": { "a": 1, "b": 2, "theirs": 3 }, "status": { "c": 4 } });
    let before = json!({ "spec": { "a": 1, "b": 2 } });
    let other = json!({ "spec": { "b": 2 } });
    let config = json!({ "spec": { "d": 5 } });
    apply(&mut object, Some(&before), &config, &[&other], false).unwrap();
    assert_eq!(object, json!({ "spec": { "b": 2, "d": 5, "theirs": 3 }, "status": { "c": 4 } }));
    let taken = json!({ "spec": { "theirs": 4 } });
    assert_eq!(apply(&mut object, Some(&config), &taken, &[], false).unwrap_err(), ".spec.theirs");
    apply(&mut object, Some(&config), &taken, &[], true).unwrap();
    assert_eq!(object["spec"], json!({ "b": 2, "theirs": 4 }));
}
