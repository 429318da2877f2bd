//! Merges one JSON value over another, as a `podTemplate` over the generated template.

use serde_json::Value;

/// Merges `over` over `base`: objects field by field, lists of named elements (containers, volumes,
/// variables) by name, everything else as a whole. `null` removes a field.
pub(super) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                if value.is_null() {
                    base.remove(name);
                } else {
                    merge(base.entry(name.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(base), Value::Array(over))
            if !over.is_empty() && base.iter().chain(over.iter()).all(is_named) =>
        {
            for value in over {
                match base.iter_mut().find(|found| found["name"] == value["name"]) {
                    Some(found) => merge(found, value),
                    None => base.push(value.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn is_named(value: &Value) -> bool {
    value.get("name").is_some_and(Value::is_string)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_merged_by_name_and_plain_lists_replaced() {
        let mut base = json!({ "spec": {
            "containers": [{ "name": "basalt", "image": "a", "args": ["x"] }],
            "nodeName": "n1",
        }});
        merge(
            &mut base,
            &json!({ "spec": {
                "containers": [
                    { "name": "basalt", "args": ["y", "z"] },
                    { "name": "beside", "image": "b" },
                ],
                "nodeName": null,
            }}),
        );
        let merged = json!({ "spec": { "containers": [
            { "name": "basalt", "image": "a", "args": ["y", "z"] },
            { "name": "beside", "image": "b" },
        ]}});
        assert_eq!(base, merged);
    }

    #[test]
    fn what_was_not_there_is_added_whole() {
        let mut base = json!({});
        merge(&mut base, &json!({ "metadata": { "annotations": { "a": "b" } } }));
        assert_eq!(base, json!({ "metadata": { "annotations": { "a": "b" } } }));
    }
}
