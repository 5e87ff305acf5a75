//! The keys of a statement, by the shards that own them.

use std::collections::BTreeMap;

use super::program::{Found, KeySource, Program};
use crate::Param;
use crate::sharding::function::ShardBy;
use crate::sharding::refusal::Checked;

/// Which shard owns which of the keys. Built first, as what is sent to a shard borrows from it.
#[derive(Debug, Default)]
pub(crate) struct Cut<'a> {
    /// The shards that own any key, with the parameters that hold one key of theirs.
    owners: BTreeMap<u32, Vec<usize>>,
    /// The parameters that hold one key.
    singles: Vec<usize>,
    /// The parameters that hold a list: what each shard owns of it.
    lists: BTreeMap<usize, BTreeMap<u32, List<'a>>>,
}

/// What a shard owns of a list, in the form the list has.
#[derive(Debug)]
enum List<'a> {
    Text(String),
    Values(Vec<Param<'a>>),
}

impl<'a> Cut<'a> {
    pub(crate) fn of(
        program: &Program,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'a>],
    ) -> Checked<Self> {
        let mut cut = Self::default();
        for key in &program.keys {
            match key.source {
                KeySource::Literal(_) => {}
                KeySource::Param(index) => cut.singles.push(index),
                KeySource::Elements(index) => drop(cut.lists.entry(index).or_default()),
            }
            let (owners, lists) = (&mut cut.owners, &mut cut.lists);
            key.each(function, shards, params, &mut |shard, found| {
                let singles = owners.entry(shard).or_default();
                let list = match key.source {
                    KeySource::Literal(_) => return,
                    KeySource::Param(index) => return singles.push(index),
                    KeySource::Elements(index) => lists.entry(index).or_default().entry(shard),
                };
                match (list.or_insert_with(|| List::of(found)), found) {
                    (List::Text(text), Found::Written(element)) => {
                        text.push(if text.is_empty() { '{' } else { ',' });
                        text.push_str(element);
                    }
                    (List::Values(values), Found::Value(value)) => values.push(value),
                    _ => {}
                }
            })?;
        }
        for list in cut.lists.values_mut().flat_map(BTreeMap::values_mut) {
            if let List::Text(text) = list {
                text.push('}');
            }
        }
        Ok(cut)
    }

    /// The shards that own any key, in ascending order.
    pub(crate) fn shards(&self) -> impl Iterator<Item = u32> {
        self.owners.keys().copied()
    }

    /// What each shard is given: keys of others are nulled, and taken out of lists, in the parameters that stand in the key
    /// list `alone` (ascending).
    pub(crate) fn parts<'p>(
        &'p self,
        alone: &[usize],
        params: &[Param<'p>],
    ) -> Vec<(u32, Vec<Param<'p>>)> {
        let alone = |index: &usize| alone.binary_search(index).is_ok();
        let parts = self.owners.iter().map(|(shard, own)| {
            let mut params = params.to_vec();
            for index in self.singles.iter().filter(|index| alone(index) && !own.contains(index)) {
                params[*index] = Param::Null;
            }
            for (index, list) in self.lists.iter().filter(|(index, _)| alone(index)) {
                // NULL is equal to no key, as a list without one.
                params[*index] = match list.get(shard) {
                    Some(List::Text(text)) => Param::Text(text),
                    Some(List::Values(values)) => Param::Array(values),
                    None => Param::Null,
                };
            }
            (*shard, params)
        });
        parts.collect()
    }
}

impl List<'_> {
    fn of(found: Found<'_, '_>) -> Self {
        match found {
            Found::Value(_) => List::Values(Vec::new()),
            Found::Alone | Found::Written(_) => List::Text(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharding::function::ShardFunction;
    use crate::sharding::key::KeyType;
    use crate::sharding::route::{Goal, Split, Target, compile};
    use crate::sharding::schema::Schema;

    #[test]
    fn each_shard_gets_its_own_elements_and_no_others() {
        let names: Vec<String> = (0..3).map(|n| format!("shard_{n}")).collect();
        let function = ShardFunction::HashMod.bind(&names, None).expect("a function");
        let mut schema = Schema::default();
        schema.add_table("agents", "org_id", KeyType::Text).expect("a table");
        let sql = "SELECT * FROM agents WHERE org_id = ANY($1) AND score > $2";
        let program = compile(sql, &schema, Goal::Keys).expect("routed");
        let Split::Keys { alone } = &program.split else { panic!("{:?}", program.split) };
        let keys: Vec<String> = (0..40).map(|n| format!("org_{}", n % 30)).collect();
        let list = format!("{{NULL,{},\"a b\"}}", keys.join(","));
        let params = [Param::Text(&list), Param::Int(1)];
        let cut = Cut::of(&program, &*function, 3, &params).expect("cut");
        let mut seen = Vec::new();
        for (shard, params) in cut.parts(alone, &params) {
            assert_eq!(params[1], Param::Int(1));
            let Param::Text(own) = params[0] else { panic!("{params:?}") };
            for element in crate::sharding::array::elements(own).expect("an array") {
                let text = element.expect("an element").text.expect("no NULL").into_owned();
                let owner = function.shard(&crate::sharding::ShardKey::Text(&text));
                assert_eq!(owner, Some(shard), "{text}");
                seen.push(text);
            }
        }
        let mut sent: Vec<String> = keys.into_iter().chain(["a b".to_owned()]).collect();
        sent.sort();
        seen.sort();
        assert_eq!(seen, sent);

        let list: Vec<Option<String>> = seen.iter().cloned().map(Some).chain([None]).collect();
        let params = [Param::from(&list), Param::Int(1)];
        let cut = Cut::of(&program, &*function, 3, &params).expect("cut");
        let parts = cut.parts(alone, &params);
        let sizes: Vec<usize> = parts
            .iter()
            .map(|(shard, params)| {
                let Param::Array(own) = params[0] else { panic!("{params:?}") };
                for value in own.values() {
                    let Param::Text(text) = value else { panic!("{value:?}") };
                    let owner = function.shard(&crate::sharding::ShardKey::Text(text));
                    assert_eq!(owner, Some(*shard), "{text}");
                }
                own.len()
            })
            .collect();
        assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (3, list.len() - 1));

        let target = |list| program.target(&*function, 3, &[Param::Text(list), Param::Int(1)]);
        assert_eq!(target("{}"), Ok(Target::Any));
        assert_eq!(target("{NULL}"), Ok(Target::Any));
        assert!(matches!(target("{a,a,NULL,\"a\"}"), Ok(Target::One(_))));
        assert!(target("a").is_err() && target("{{a}}").is_err());
    }
}
