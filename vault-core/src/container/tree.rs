//! A hash tree over the rows: whether one relying party's rows are the ones that were committed is
//! decided along one path of [`DEPTH`] nodes, however many rows there are.
//!
//! Rows fall into 65,536 buckets by the first 16 bits of their RP tag. A node is the 16 digests of its
//! children; an empty bucket or node has the digest 0. The root stands in the authenticated header.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest as _, Sha256};

use super::{ContainerError, Damage};

pub(super) type Digest = [u8; 32];

/// The digest of nothing.
pub(super) const EMPTY: Digest = [0; 32];

const DEPTH: u32 = 4;
const FANOUT: usize = 16;
const NODE_LEN: usize = FANOUT * 32;

/// The digest of a bucket, from its rows in the order of their ids.
pub(super) struct BucketDigest(Option<Sha256>);

impl BucketDigest {
    pub(super) fn new() -> Self {
        Self(None)
    }

    pub(super) fn add(&mut self, id: i64, rp_tag: &[u8; 32], sealed: &[u8]) {
        let hash = self.0.get_or_insert_with(|| Sha256::new_with_prefix(b"passhold v1 bucket"));
        hash.update(id.to_be_bytes());
        hash.update(rp_tag);
        hash.update(Sha256::digest(sealed));
    }

    pub(super) fn finish(self) -> Digest {
        self.0.map_or(EMPTY, |hash| hash.finalize().into())
    }
}

/// Whether `bucket` has the digest that `root` vouches for.
pub(super) fn check(
    db: &Connection,
    root: &Digest,
    bucket: u16,
    digest: Digest,
) -> Result<(), ContainerError> {
    let mut digest = digest;
    for (node, slot) in path(bucket) {
        let children = load(db, node)?;
        if children.get(slot) != Some(&digest) {
            return Err(Damage::Tree.into());
        }
        digest = node_digest(&children);
    }
    if digest == *root { Ok(()) } else { Err(Damage::Tree.into()) }
}

/// Sets the digest of `bucket` and returns the new root. The path was checked before.
pub(super) fn set(db: &Connection, bucket: u16, digest: Digest) -> Result<Digest, ContainerError> {
    let mut digest = digest;
    for (node, slot) in path(bucket) {
        let mut children = load(db, node)?;
        if let Some(child) = children.get_mut(slot) {
            *child = digest;
        }
        digest = node_digest(&children);
        if digest == EMPTY {
            db.prepare_cached("DELETE FROM tree WHERE node = ?1")?.execute([node])?;
        } else {
            db.prepare_cached("INSERT OR REPLACE INTO tree (node, children) VALUES (?1, ?2)")?
                .execute((node, children.as_flattened()))?;
        }
    }
    Ok(digest)
}

/// The root over all buckets, in their order, from scratch: what a full check compares.
pub(super) fn root_of(buckets: Vec<(u16, Digest)>) -> Digest {
    let mut level = buckets;
    for _ in 0..DEPTH {
        let siblings = level.chunk_by(|(one, _), (other, _)| one >> 4 == other >> 4);
        level = siblings.filter_map(parent_of).collect();
    }
    level.first().map_or(EMPTY, |(_, digest)| *digest)
}

fn parent_of(siblings: &[(u16, Digest)]) -> Option<(u16, Digest)> {
    let mut children = [EMPTY; FANOUT];
    for (prefix, digest) in siblings {
        *children.get_mut(usize::from(prefix & 0xf))? = *digest;
    }
    let (prefix, _) = siblings.first()?;
    Some((prefix >> 4, node_digest(&children)))
}

/// The nodes above a bucket, lowest first, each with the slot that leads there. A node's number is its
/// level and the bits that lead to it, so that no two share one.
fn path(bucket: u16) -> impl Iterator<Item = (i64, usize)> {
    (1..=DEPTH).map(move |height| {
        let prefix = u32::from(bucket) >> (4 * height);
        let slot = usize::from((bucket >> (4 * (height - 1))) & 0xf);
        (i64::from((height << 16) | prefix), slot)
    })
}

fn load(db: &Connection, node: i64) -> Result<[Digest; FANOUT], ContainerError> {
    let children: Option<Vec<u8>> = db
        .prepare_cached("SELECT children FROM tree WHERE node = ?1")?
        .query_row([node], |row| row.get(0))
        .optional()?;
    let Some(children) = children else { return Ok([EMPTY; FANOUT]) };
    let children: [u8; NODE_LEN] = children.try_into().map_err(|_| Damage::Tree)?;
    let (digests, _) = children.as_chunks::<32>();
    digests.try_into().map_err(|_| Damage::Tree.into())
}

fn node_digest(children: &[Digest; FANOUT]) -> Digest {
    if children.iter().all(|d| *d == EMPTY) {
        return EMPTY;
    }
    Sha256::new_with_prefix(b"passhold v1 node").chain_update(children.as_flattened()).finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn db() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE tree (node INTEGER PRIMARY KEY, children BLOB NOT NULL) STRICT")
            .unwrap();
        db
    }

    #[test]
    fn the_root_along_the_path_is_the_root_from_scratch() {
        let db = db();
        let mut all = BTreeMap::new();
        for n in 0..400_u16 {
            let (bucket, digest) = (n.wrapping_mul(0x9e37), Sha256::digest(n.to_be_bytes()).into());
            all.insert(bucket, digest);
            assert_eq!(set(&db, bucket, digest).unwrap(), root_of(all.clone().into_iter().collect()));
        }
    }

    #[test]
    fn another_digest_another_root_and_another_node_are_refused() {
        let db = db();
        let root = set(&db, 0x1234, [7; 32]).unwrap();
        check(&db, &root, 0x1234, [7; 32]).unwrap();
        check(&db, &root, 0x1235, EMPTY).unwrap();
        assert!(check(&db, &root, 0x1234, [8; 32]).is_err());
        assert!(check(&db, &root, 0x1234, EMPTY).is_err());
        assert!(check(&db, &[1; 32], 0x1234, [7; 32]).is_err());
        db.execute("DELETE FROM tree WHERE node = (SELECT max(node) FROM tree)", []).unwrap();
        assert!(check(&db, &root, 0x1234, [7; 32]).is_err());
    }

    #[test]
    fn an_emptied_tree_has_the_empty_root_and_no_nodes() {
        let db = db();
        set(&db, 5, [7; 32]).unwrap();
        assert_eq!(set(&db, 5, EMPTY).unwrap(), EMPTY);
        assert_eq!(db.query_row("SELECT count(*) FROM tree", [], |r| r.get::<_, i64>(0)).unwrap(), 0);
    }
}
