//! Creates, changes and lists tables.

use std::sync::Arc;

use basalt_hbase_rpc::{Call, Exception, ExceptionKind, Reply, pb, schema};
use basalt_model::{FamilyDescriptor, TableDescriptor, TableName, TableState};

use super::{Answer, MasterRpc, nonce, read, sanity};
use crate::procedure::{Procedure, ProcedureOutcome};
use crate::term::Term;

/// The longest pattern that is accepted.
const PATTERN_BYTES_MAX: usize = 1_024;
/// The maximum size of a compiled pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// The tables that a client asks for.
#[derive(Debug, Default)]
struct Selection {
    /// Only these tables; all tables if empty.
    names: Vec<TableName>,
    pattern: Option<regex::Regex>,
    namespace: Option<String>,
    is_enabled: Option<bool>,
}

// === impl MasterRpc ===

impl MasterRpc {
    pub(super) async fn tables(&self, term: &Arc<Term>, call: &Call) -> Answer {
        match call.method.as_str() {
            "CreateTable" => create(term, read(call)?).await,
            "DeleteTable" => {
                let request: pb::DeleteTableRequest = read(call)?;
                let nonce = nonce(request.nonce_group, request.nonce);
                let proc_id = Some(term.delete_table(name(&request.table_name)?, nonce).await?);
                Ok(Reply::new(&pb::DeleteTableResponse { proc_id }))
            }
            "EnableTable" => {
                let request: pb::EnableTableRequest = read(call)?;
                let nonce = nonce(request.nonce_group, request.nonce);
                let proc_id = Some(term.enable_table(name(&request.table_name)?, nonce).await?);
                Ok(Reply::new(&pb::EnableTableResponse { proc_id }))
            }
            "DisableTable" => {
                let request: pb::DisableTableRequest = read(call)?;
                let nonce = nonce(request.nonce_group, request.nonce);
                let proc_id = Some(term.disable_table(name(&request.table_name)?, nonce).await?);
                Ok(Reply::new(&pb::DisableTableResponse { proc_id }))
            }
            "truncateTable" | "TruncateTable" => {
                let request: pb::TruncateTableRequest = read(call)?;
                let nonce = nonce(request.nonce_group, request.nonce);
                let (table, preserve) = (name(&request.table_name)?, request.preserve_splits());
                let proc_id = Some(term.truncate_table(table, preserve, nonce).await?);
                Ok(Reply::new(&pb::TruncateTableResponse { proc_id }))
            }
            "FlushTable" => {
                let request: pb::FlushTableRequest = read(call)?;
                let nonce = nonce(request.nonce_group, request.nonce);
                let proc_id = Some(term.flush_table(name(&request.table_name)?, nonce).await?);
                Ok(Reply::new(&pb::FlushTableResponse { proc_id }))
            }
            "ModifyTable" | "AddColumn" | "ModifyColumn" | "DeleteColumn" => {
                alter(term, call).await
            }
            "getProcedureResult" => {
                let request: pb::GetProcedureResultRequest = read(call)?;
                Ok(Reply::new(&procedure_result(term.procedure_store.as_shown(request.proc_id))))
            }
            "GetTableState" => {
                term.catalog_is_shown().await;
                let request: pb::GetTableStateRequest = read(call)?;
                let table_state = schema::state_to_message(self.state(&request.table_name)?);
                Ok(Reply::new(&pb::GetTableStateResponse { table_state }))
            }
            "GetSchemaAlterStatus" => {
                let request: pb::GetSchemaAlterStatusRequest = read(call)?;
                let table = name(&request.table_name)?;
                let regions = self.catalog.regions_of(&table).len();
                Ok(Reply::new(&pb::GetSchemaAlterStatusResponse {
                    yet_to_update_regions: Some(0),
                    total_regions: u32::try_from(regions).ok(),
                }))
            }
            _ => {
                term.catalog_is_shown().await;
                self.list(call)
            }
        }
    }

    fn list(&self, call: &Call) -> Answer {
        let selection = selection(call)?;
        let tables = self.catalog.tables().into_values().map(|table| table.record);
        let selected = tables.filter(|table| selection.contains(&table.descriptor, table.state));
        let descriptors: Vec<TableDescriptor> = selected.map(|table| table.descriptor).collect();
        let table_schema = descriptors.iter().map(schema::table_to_message);
        let names = descriptors.iter().map(|table| schema::table_name_to_message(&table.name));
        Ok(match call.method.as_str() {
            "GetTableDescriptors" => {
                let table_schema = table_schema.collect();
                Reply::new(&pb::GetTableDescriptorsResponse { table_schema })
            }
            "ListTableDescriptorsByNamespace" => {
                let table_schema = table_schema.collect();
                Reply::new(&pb::ListTableDescriptorsByNamespaceResponse { table_schema })
            }
            "ListTableDescriptorsByState" => {
                let table_schema = table_schema.collect();
                Reply::new(&pb::ListTableDescriptorsByStateResponse { table_schema })
            }
            "ListTableNamesByNamespace" => {
                let table_name = names.collect();
                Reply::new(&pb::ListTableNamesByNamespaceResponse { table_name })
            }
            "ListTableNamesByState" => {
                let table_names = names.collect();
                Reply::new(&pb::ListTableNamesByStateResponse { table_names })
            }
            _ => Reply::new(&pb::GetTableNamesResponse { table_names: names.collect() }),
        })
    }

    fn state(&self, table: &pb::TableName) -> Result<TableState, Exception> {
        let table = name(table)?;
        if table.is_system() {
            return Ok(TableState::Enabled);
        }
        let known = self.catalog.table(&table).map(|known| known.record.state);
        known.ok_or_else(|| Exception::new(ExceptionKind::TableNotFound, table.to_string()))
    }
}

// === impl Selection ===

impl Selection {
    fn contains(&self, table: &TableDescriptor, state: TableState) -> bool {
        let name = &table.name;
        (self.names.is_empty() || self.names.contains(name))
            && self.namespace.as_deref().is_none_or(|namespace| name.namespace() == namespace)
            && self.pattern.as_ref().is_none_or(|pattern| {
                // Java's client writes tables of the default namespace either way.
                pattern.is_match(&name.to_string())
                    || pattern.is_match(&format!("{}:{}", name.namespace(), name.qualifier()))
            })
            && self.is_enabled.is_none_or(|enabled| enabled == (state == TableState::Enabled))
    }
}

async fn create(term: &Arc<Term>, request: pb::CreateTableRequest) -> Answer {
    let descriptor =
        schema::table_from_message(&request.table_schema).map_err(Exception::bad_request)?;
    sanity::check_descriptor(&descriptor)?;
    let split_keys = sanity::check_split_keys(request.split_keys)?;
    let nonce = nonce(request.nonce_group, request.nonce);
    let proc_id = Some(term.create_table(descriptor, split_keys, nonce).await?);
    Ok(Reply::new(&pb::CreateTableResponse { proc_id }))
}

/// Alters a whole table, or one of its families.
async fn alter(term: &Arc<Term>, call: &Call) -> Answer {
    let family = |message: &pb::ColumnFamilySchema| {
        schema::family_from_message(message).map_err(Exception::bad_request)
    };
    let (table, nonce, change) = match call.method.as_str() {
        "ModifyTable" => {
            let request: pb::ModifyTableRequest = read(call)?;
            let descriptor = schema::table_from_message(&request.table_schema);
            let change = Alteration::Table(descriptor.map_err(Exception::bad_request)?);
            (request.table_name, nonce(request.nonce_group, request.nonce), change)
        }
        "AddColumn" => {
            let request: pb::AddColumnRequest = read(call)?;
            let change = Alteration::AddFamily(family(&request.column_families)?);
            (request.table_name, nonce(request.nonce_group, request.nonce), change)
        }
        "ModifyColumn" => {
            let request: pb::ModifyColumnRequest = read(call)?;
            let change = Alteration::ModifyFamily(family(&request.column_families)?);
            (request.table_name, nonce(request.nonce_group, request.nonce), change)
        }
        _ => {
            let request: pb::DeleteColumnRequest = read(call)?;
            let name = String::from_utf8_lossy(&request.column_name).into_owned();
            let change = Alteration::DeleteFamily(name);
            (request.table_name, nonce(request.nonce_group, request.nonce), change)
        }
    };
    let change = |descriptor| {
        let altered = change.apply(descriptor)?;
        sanity::check_descriptor(&altered)?;
        Ok(altered)
    };
    let proc_id = Some(term.modify_table(name(&table)?, change, nonce).await?);
    // All four replies have the same message type.
    Ok(Reply::new(&pb::ModifyTableResponse { proc_id }))
}

/// A change of a table's descriptor.
enum Alteration {
    Table(TableDescriptor),
    AddFamily(FamilyDescriptor),
    ModifyFamily(FamilyDescriptor),
    DeleteFamily(String),
}

// === impl Alteration ===

impl Alteration {
    fn apply(self, mut table: TableDescriptor) -> Result<TableDescriptor, Exception> {
        let refused =
            |message: String| Err(Exception::new(ExceptionKind::InvalidFamilyOperation, message));
        let of = table.name.clone();
        match self {
            Self::Table(altered) if altered.name != table.name => {
                let message = format!("the descriptor describes {}, not {of}", altered.name);
                return Err(Exception::bad_request(message));
            }
            Self::Table(altered) => table = altered,
            Self::AddFamily(family) if table.families.contains_key(&family.name) => {
                return refused(format!("{of} already has a family {:?}", family.name));
            }
            Self::ModifyFamily(family) if !table.families.contains_key(&family.name) => {
                return refused(format!("{of} has no family {:?}", family.name));
            }
            Self::AddFamily(family) | Self::ModifyFamily(family) => {
                table.families.insert(family.name.clone(), family);
            }
            Self::DeleteFamily(name) => {
                if table.families.remove(&name).is_none() {
                    return refused(format!("{of} has no family {name:?}"));
                }
                if table.families.is_empty() {
                    return refused(format!("{name:?} is the only family of {of}"));
                }
            }
        }
        Ok(table)
    }
}

/// The failure of a procedure, as a message.
pub(super) fn foreign_exception(class_name: &str, message: &str) -> pb::ForeignExceptionMessage {
    let generic_exception = Some(pb::GenericExceptionMessage {
        class_name: Some(class_name.to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    });
    pb::ForeignExceptionMessage { source: None, generic_exception }
}

fn procedure_result(procedure: Option<Procedure>) -> pb::GetProcedureResultResponse {
    use pb::get_procedure_result_response::State;
    let Some(procedure) = procedure else {
        let state = State::NotFound.into();
        return pb::GetProcedureResultResponse { state, ..Default::default() };
    };
    let (state, exception) = match &procedure.outcome {
        None => (State::Running, None),
        Some(ProcedureOutcome::Done) => (State::Finished, None),
        Some(ProcedureOutcome::Failed { exception, message }) => {
            (State::Finished, Some(foreign_exception(exception, message)))
        }
    };
    pb::GetProcedureResultResponse {
        state: state.into(),
        submitted_time: Some(procedure.submitted_ms),
        last_update: Some(procedure.updated_ms),
        result: None,
        exception,
    }
}

fn selection(call: &Call) -> Result<Selection, Exception> {
    let of_namespace = |name: String| Selection { namespace: Some(name), ..Selection::default() };
    let of_state = |enabled: bool| Selection { is_enabled: Some(enabled), ..Selection::default() };
    Ok(match call.method.as_str() {
        "GetTableDescriptors" => {
            let request: pb::GetTableDescriptorsRequest = read(call)?;
            let names = request.table_names.iter().map(name);
            Selection {
                names: names.collect::<Result<_, _>>()?,
                pattern: request.regex.as_deref().map(pattern).transpose()?,
                namespace: request.namespace.filter(|name| !name.is_empty()),
                is_enabled: None,
            }
        }
        "GetTableNames" => {
            let request: pb::GetTableNamesRequest = read(call)?;
            Selection {
                pattern: request.regex.as_deref().map(pattern).transpose()?,
                namespace: request.namespace.filter(|name| !name.is_empty()),
                ..Selection::default()
            }
        }
        "ListTableDescriptorsByNamespace" => {
            let request: pb::ListTableDescriptorsByNamespaceRequest = read(call)?;
            of_namespace(request.namespace_name)
        }
        "ListTableNamesByNamespace" => {
            let request: pb::ListTableNamesByNamespaceRequest = read(call)?;
            of_namespace(request.namespace_name)
        }
        "ListTableDescriptorsByState" => {
            let request: pb::ListTableDescriptorsByStateRequest = read(call)?;
            of_state(request.is_enabled)
        }
        "ListTableNamesByState" => {
            let request: pb::ListTableNamesByStateRequest = read(call)?;
            of_state(request.is_enabled)
        }
        method => return Err(Exception::unknown_method(method)),
    })
}

/// Compiles a pattern that must match a whole name, as in Java.
fn pattern(text: &str) -> Result<regex::Regex, Exception> {
    if text.len() > PATTERN_BYTES_MAX {
        let message = format!("a pattern may be at most {PATTERN_BYTES_MAX} bytes long");
        return Err(Exception::bad_request(message));
    }
    regex::RegexBuilder::new(&format!("^(?:{})$", unquoted(text)))
        .size_limit(PATTERN_SIZE_MAX)
        .build()
        .map_err(|error| Exception::bad_request(format!("pattern {text:?}: {error}")))
}

/// Removes the quotes from a Java pattern: text between `\\Q` and `\\E` is literal.
fn unquoted(text: &str) -> String {
    let mut parts = text.split("\\Q");
    let mut pattern = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (quoted, rest) = part.split_once("\\E").unwrap_or((part, ""));
        pattern.push_str(&regex::escape(quoted));
        pattern.push_str(rest);
    }
    pattern
}

fn name(table: &pb::TableName) -> Result<TableName, Exception> {
    schema::table_name_from_message(table).map_err(Exception::bad_request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::testing::table;

    fn selects(selection: &Selection, name: &str) -> bool {
        let table = table(name, TableState::Enabled).record;
        selection.contains(&table.descriptor, table.state)
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let selection =
            Selection { pattern: Some(pattern("user.*").unwrap()), ..Selection::default() };
        assert!(selects(&selection, "usertable"));
        assert!(!selects(&selection, "myusertable"));
        let selection =
            Selection { pattern: Some(pattern("default:u.*").unwrap()), ..Selection::default() };
        assert!(selects(&selection, "usertable"));
        assert!(pattern("(").is_err());
        let quoted = pattern("(default:)?\\Qa.b\\E").unwrap();
        assert!(quoted.is_match("a.b") && !quoted.is_match("axb"));
    }

    #[test]
    fn tables_are_selected_by_name_namespace_and_state() {
        assert!(selects(&Selection::default(), "ns:t"));
        let by_name = Selection { names: vec!["t".parse().unwrap()], ..Selection::default() };
        assert!(selects(&by_name, "t") && !selects(&by_name, "u"));
        let by_namespace = Selection { namespace: Some("ns".to_owned()), ..Selection::default() };
        assert!(selects(&by_namespace, "ns:t") && !selects(&by_namespace, "t"));
        let disabled = Selection { is_enabled: Some(false), ..Selection::default() };
        assert!(!selects(&disabled, "t"));
    }

    #[test]
    fn a_family_is_added_once_and_the_last_one_stays() {
        let table = table("t", TableState::Enabled).record.descriptor;
        let add = |name: &str| Alteration::AddFamily(FamilyDescriptor::new(name));
        let both = add("g").apply(table.clone()).unwrap();
        assert_eq!(both.families.len(), 2);
        let kind =
            |result: Result<_, Exception>| result.map(|_: TableDescriptor| ()).unwrap_err().kind();
        assert_eq!(kind(add("g").apply(both.clone())), ExceptionKind::InvalidFamilyOperation);
        let delete = |name: &str| Alteration::DeleteFamily(name.to_owned());
        assert_eq!(kind(delete("x").apply(both.clone())), ExceptionKind::InvalidFamilyOperation);
        let one = delete("g").apply(both).unwrap();
        assert_eq!(one, table);
        assert_eq!(kind(delete("f").apply(one)), ExceptionKind::InvalidFamilyOperation);
    }

    #[test]
    fn a_procedure_is_reported_with_its_exception() {
        use crate::procedure::Work;
        use pb::get_procedure_result_response::State;
        assert_eq!(procedure_result(None).state(), State::NotFound);
        let work = Work::EnableTable { table: "t".parse().unwrap() };
        let mut procedure = Procedure::new(work, None, 1);
        assert_eq!(procedure_result(Some(procedure.clone())).state(), State::Running);
        procedure.outcome =
            Some(ProcedureOutcome::Failed { exception: "E".to_owned(), message: "m".to_owned() });
        let result = procedure_result(Some(procedure));
        assert_eq!(result.state(), State::Finished);
        let exception = result.exception.unwrap().generic_exception.unwrap();
        assert_eq!(exception.class_name(), "E");
    }
}
