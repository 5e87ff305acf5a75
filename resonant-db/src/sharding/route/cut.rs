//! The keys of a statement, by the shards that own them.

use std::collections::BTreeMap;

use super::program::{KeySource, Program};
use crate::Param;
use crate::sharding::function::ShardBy;
use crate::sharding::refusal::Checked;

/// Which shard owns which of the keys. Built first, as what is sent to a shard borrows from it.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// The shards that own any key, with the parameters that hold one key of theirs.
    owners: BTreeMap<u32, Vec<usize>>,
    /// The parameters that hold one key.
    singles: Vec<usize>,
    /// The parameters that hold a list: what each shard owns of it.
    lists: BTreeMap<usize, BTreeMap<u32, String>>,
}

impl Cut {
    pub(crate) fn of(
        program: &Program,
        function: &dyn ShardBy,
        shards: u32,
        params: &[Param<'_>],
    ) -> Checked<Self> {
        let mut cut = Self::default();
        for key in &program.keys {
            let source = match key.source {
                KeySource::Literal(_) => None,
                KeySource::Param(index) => {
                    cut.singles.push(index);
                    Some(index)
                }
                KeySource::Elements(index) => {
                    cut.lists.entry(index).or_default();
                    None
                }
            };
            let (owners, lists) = (&mut cut.owners, &mut cut.lists);
            key.each(function, shards, params, &mut |shard, raw| {
                let singles = owners.entry(shard).or_default();
                singles.extend(source);
                if let (KeySource::Elements(index), Some(raw)) = (&key.source, raw) {
                    let list = lists.entry(*index).or_default().entry(shard).or_default();
                    list.push(if list.is_empty() { '{' } else { ',' });
                    list.push_str(raw);
                }
            })?;
        }
        for list in cut.lists.values_mut().flat_map(BTreeMap::values_mut) {
            list.push('}');
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
                params[*index] = Param::Text(list.get(shard).map_or("{}", String::as_str));
            }
            (*shard, params)
        });
        parts.collect()
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

        let target = |list| program.target(&*function, 3, &[Param::Text(list), Param::Int(1)]);
        assert_eq!(target("{}"), Ok(Target::Any));
        assert_eq!(target("{NULL}"), Ok(Target::Any));
        assert!(matches!(target("{a,a,NULL,\"a\"}"), Ok(Target::One(_))));
        assert!(target("a").is_err() && target("{{a}}").is_err());
    }
}
