//! INSERT, UPDATE and DELETE.

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, DoUpdate, FromTable, Insert, ObjectName,
    ObjectNamePart, OnConflict, OnConflictAction, OnInsert, Query, SetExpr, TableObject, Update,
    UpdateTableFromKind, Values as ValuesNode,
};

use super::bind::constant;
use super::from::{add_condition, table_name, unknown};
use super::scope::{Block, Kind, Relation, Scope};
use super::select::Item;
use super::{Analyser, Env, Root, Values};
use crate::sharding::refusal::{Checked, refuse};
use crate::sharding::route::program::KeyUse;
use crate::sharding::schema::Table;

impl Analyser<'_> {
    pub(super) fn update(&mut self, update: &Update) -> Checked {
        let Update {
            update_token: _,
            optimizer_hints: _,
            table,
            assignments,
            from,
            selection,
            returning,
            output,
            or,
            order_by,
            limit,
        } = update;
        if output.is_some() || or.is_some() || !order_by.is_empty() || limit.is_some() {
            return unknown("UPDATE with OR, ORDER BY, LIMIT or OUTPUT");
        }
        let top = Env { scope: None, top: true };
        let mut block = Block::default();
        self.joined(table, top, &mut block)?;
        let key = target_key(&block)?;
        if block.relations.len() != 1 {
            return unknown("UPDATE of a join");
        }
        match from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(tables)) => {
                for table in tables {
                    self.joined(table, top, &mut block)?;
                }
            }
            Some(UpdateTableFromKind::BeforeSet(_)) => return unknown("UPDATE … FROM before SET"),
        }
        if let Some(selection) = selection {
            let all = 0..block.relations.len();
            add_condition(selection, all, &mut block);
        }
        self.bind(&mut block, top)?;
        let scope = Scope { outer: None, block: &block };
        let inside = Env::inside(&scope);
        self.conditions(&block, inside)?;
        self.assignments(assignments, &key, Some(inside))?;
        for item in returning.iter().flatten() {
            self.item(item, inside)?;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, delete: &Delete) -> Checked {
        let Delete {
            delete_token: _,
            optimizer_hints: _,
            tables,
            from,
            using,
            selection,
            returning,
            output,
            order_by,
            limit,
        } = delete;
        if output.is_some() || !tables.is_empty() || !order_by.is_empty() || limit.is_some() {
            return unknown("DELETE with ORDER BY, LIMIT, OUTPUT or several targets");
        }
        let FromTable::WithFromKeyword(from) = from else { return unknown("DELETE without FROM") };
        let top = Env { scope: None, top: true };
        let mut block = self.from(from, top)?;
        if block.relations.len() != 1 {
            return unknown("DELETE from several tables");
        }
        target_key(&block)?;
        for table in using.iter().flatten() {
            self.joined(table, top, &mut block)?;
        }
        if let Some(selection) = selection {
            let all = 0..block.relations.len();
            add_condition(selection, all, &mut block);
        }
        self.bind(&mut block, top)?;
        let scope = Scope { outer: None, block: &block };
        let inside = Env::inside(&scope);
        self.conditions(&block, inside)?;
        for item in returning.iter().flatten() {
            self.item(item, inside)?;
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, insert: &Insert) -> Checked {
        let Insert {
            insert_token: _,
            optimizer_hints: _,
            or,
            ignore,
            into: _,
            table,
            table_alias,
            columns,
            overwrite,
            source,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        if or.is_some() || *replace_into || *ignore {
            return refuse(
                "INSERT OR …, REPLACE and IGNORE settle conflicts a shard cannot see",
                "use ON CONFLICT with columns that hold the shard key",
            );
        }
        let plain = table_alias.is_none()
            && !overwrite
            && assignments.is_empty()
            && partitioned.is_none()
            && after_columns.is_empty()
            && !has_table_keyword
            && output.is_none()
            && priority.is_none()
            && insert_alias.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && multi_table_insert_type.is_none()
            && multi_table_into_clauses.is_empty()
            && multi_table_when_clauses.is_empty()
            && multi_table_else_clause.is_none();
        let (true, TableObject::TableName(name)) = (plain, table) else {
            return unknown("INSERT with a clause of another dialect");
        };
        let name = table_name(name)?;
        let Some(table) = self.schema.table(&name).cloned() else {
            return refuse_target(self.schema.is_reference(&name), &name);
        };
        let Some(position) = key_position(columns, &table.key)? else {
            return refuse(
                format!("the columns of the INSERT do not name {name}.{}", table.key),
                "list the columns, with the key among them",
            );
        };
        let Some(source) = source else { return unknown("INSERT without VALUES or SELECT") };
        self.rows_of(source, &name, &table, columns.len(), position)?;
        match on {
            None => {}
            Some(OnInsert::OnConflict(conflict)) => self.conflict(conflict, &table.key)?,
            Some(_) => return unknown("INSERT … ON of another dialect"),
        }
        for item in returning.iter().flatten() {
            self.item(item, Env::OUTSIDE)?;
        }
        Ok(())
    }

    fn rows_of(
        &mut self,
        source: &Query,
        name: &str,
        table: &Table,
        width: usize,
        position: usize,
    ) -> Checked {
        let label: std::sync::Arc<str> = format!("{name}.{}", table.key).into();
        let not_constant = || {
            refuse(
                format!("a row of the INSERT has no plain parameter or literal for {label}"),
                "give the key as $n",
            )
        };
        match (
            &*source.body,
            source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none(),
        ) {
            (
                SetExpr::Values(ValuesNode { explicit_row: false, value_keyword: false, rows }),
                true,
            ) => {
                for row in rows {
                    let row = &row.content;
                    let Some(key) = row.get(position).filter(|_| row.len() == width) else {
                        return refuse(
                            "a row of VALUES has not as many values as columns",
                            "complete it",
                        );
                    };
                    let Some(source) = constant(table.key_type, &label, key)? else {
                        return not_constant();
                    };
                    self.rows.push(KeyUse {
                        key_type: table.key_type,
                        source,
                        label: label.clone(),
                    });
                    for value in row {
                        self.expr(value, Some(Env::OUTSIDE))?;
                    }
                }
                Ok(())
            }
            (SetExpr::Select(select), _) => {
                let items = self.query(source, Env::OUTSIDE)?;
                if items.len() != width || items.iter().any(|item| matches!(item, Item::All(_))) {
                    return refuse(
                        "the select list of the INSERT is not column for column",
                        "name every column instead of *",
                    );
                }
                // A key that is copied lands where it came from.
                if let Some(Item::One { key: Some(key), nullable: false, .. }) = items.get(position)
                    && key.key_type == table.key_type
                {
                    return Ok(());
                }
                use sqlparser::ast::SelectItem;
                let expr = match select.projection.get(position) {
                    Some(
                        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. },
                    ) => expr,
                    _ => return not_constant(),
                };
                let Some(source) = constant(table.key_type, &label, expr)? else {
                    return not_constant();
                };
                let values = Values::These(vec![source]);
                self.root(Root { key_type: table.key_type, label, values, splits: false });
                Ok(())
            }
            _ => unknown("INSERT of something that is no VALUES or SELECT"),
        }
    }

    fn conflict(&mut self, conflict: &OnConflict, key: &str) -> Checked {
        let OnConflict { conflict_target, action } = conflict;
        let named = match conflict_target {
            Some(ConflictTarget::Columns(columns)) => {
                columns.iter().any(|column| super::folded(column) == key)
            }
            Some(ConflictTarget::OnConstraint(_)) | None => false,
        };
        if !named {
            return refuse(
                "ON CONFLICT without the shard key among its columns would miss conflicts on other shards",
                "name the columns, with the key among them, over a unique constraint that holds it",
            );
        }
        match action {
            OnConflictAction::DoNothing => Ok(()),
            OnConflictAction::DoUpdate(DoUpdate { assignments, selection }) => {
                self.assignments(assignments, key, None)?;
                selection.as_ref().map_or(Ok(()), |selection| self.expr(selection, None))
            }
        }
    }

    fn assignments(
        &mut self,
        assignments: &[Assignment],
        key: &str,
        env: Option<Env<'_>>,
    ) -> Checked {
        for Assignment { target, value } in assignments {
            let targets = match target {
                AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
                AssignmentTarget::Tuple(names) => names.as_slice(),
            };
            for name in targets {
                match name.0.last() {
                    // In any spelling: to some engine it is the key.
                    Some(ObjectNamePart::Identifier(column))
                        if !column.value.eq_ignore_ascii_case(key) => {}
                    Some(ObjectNamePart::Identifier(_)) => {
                        return refuse(
                            format!(
                                "the statement changes the shard key {key}, so the row would be on the wrong shard"
                            ),
                            "insert the row under its new key and delete the old one",
                        );
                    }
                    _ => return unknown("an assignment to a computed name"),
                }
            }
            self.expr(value, env)?;
        }
        Ok(())
    }
}

/// The key column of the one relation that is written.
fn target_key(block: &Block<'_>) -> Checked<String> {
    match block.relations.as_slice() {
        [Relation { kind: Kind::Sharded { key, .. }, .. }] => Ok(key.to_string()),
        [Relation { kind: Kind::Opaque { .. }, name, .. }] => refuse_target(true, name),
        _ => unknown("a write to a join"),
    }
}

fn refuse_target<T>(reference: bool, name: &str) -> Checked<T> {
    if reference {
        refuse(
            format!("{name} is the same on every shard, so a write to it must reach all of them"),
            "write it with on_all",
        )
    } else {
        refuse(
            format!("the table {name} is not declared"),
            "declare it with .table(name, key, type)",
        )
    }
}

/// Where the key stands among the columns of an INSERT.
fn key_position(columns: &[ObjectName], key: &str) -> Checked<Option<usize>> {
    let mut found = None;
    for (at, column) in columns.iter().enumerate() {
        let [ObjectNamePart::Identifier(column)] = column.0.as_slice() else {
            return unknown("a qualified column in INSERT");
        };
        if column.value.eq_ignore_ascii_case(key) {
            if found.is_some() || super::folded(column) != key {
                return refuse(
                    "the INSERT names the shard key twice or with capitals",
                    "name it once",
                );
            }
            found = Some(at);
        }
    }
    Ok(found)
}
