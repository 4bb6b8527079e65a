//! A worker that says anything, or writes to what it has mapped.

use std::sync::Arc;

use anyserve_core::ObjRef;
use anyserve_shm::{Attached, BlockId, Extent, Lease, Owner, Plane, Usage, Writer};
use proptest::prelude::*;

use crate::support::{MIB, attach, block, number, plane, put, signed};

const HOSTILE: Owner = Owner(66);
const HONEST: Owner = Owner(1);

/// A plane with an object, a tensor, and a grant of each worker.
struct Scene {
    plane: Plane,
    hostile: Arc<Attached>,
    objects: Vec<BlockId>,
    grants: Vec<Extent>,
    tensor: bytes::Bytes,
}

fn scene() -> Scene {
    let plane = plane(MIB);
    let hostile = attach(&plane, HOSTILE);
    attach(&plane, HONEST);
    let objects = vec![block(put(&plane, &signed(1, 1000), Lease::default()))];
    let grant = |owner| plane.grant(1000, Writer::Worker(owner), false).unwrap();
    let grants = vec![grant(HONEST), grant(HOSTILE)];
    let written = grant(HOSTILE);
    assert!(hostile.write(&written, 0, &signed(2, 1000)));
    let tensor = plane.adopt(written.block, Writer::Worker(HOSTILE), 1000).unwrap();
    Scene { plane, hostile, objects, grants, tensor }
}

fn objref(plane: &Plane, block: BlockId) -> ObjRef {
    ObjRef { store: plane.store(), index: block.index, generation: block.generation }
}

fn wild() -> impl Strategy<Value = BlockId> {
    let index = prop_oneof![0..6_u32, Just(1023), Just(1024), Just(u32::MAX), any::<u32>()];
    let generation = prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()];
    (index, generation).prop_map(|(index, generation)| BlockId { index, generation })
}

fn unchanged(scene: &Scene, before: Usage) {
    scene.plane.tick();
    assert_eq!(scene.plane.usage(), before);
    assert_eq!(number(&scene.plane.object(objref(&scene.plane, scene.objects[0])).unwrap().bytes), Some(1));
    assert_eq!(number(&scene.tensor), Some(2));
    assert_eq!(scene.hostile.pinned(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wild_names_come_to_nothing(ids in prop::collection::vec(wild(), 1..20), len in any::<u64>()) {
        let scene = scene();
        let (plane, own) = (&scene.plane, Writer::Worker(HOSTILE));
        let before = plane.usage();
        for id in ids {
            prop_assert!(scene.hostile.view(id).is_none());
            prop_assert!(plane.seal(id, own, len, Lease::default()).is_err());
            prop_assert!(plane.adopt(id, own, len).is_err());
            prop_assert!(plane.take(id, HOSTILE, len).is_err() && plane.take(id, Owner(u32::MAX), len).is_err());
            plane.discard(id, own);
            scene.hostile.hand_over(BlockId { index: id.index.max(1024), ..id });
        }
        unchanged(&scene, before);
    }

    #[test]
    fn wild_places_are_not_written_to(start: u64, len: u64, offset: u64) {
        let scene = scene();
        let capacity = scene.plane.layout().capacity;
        let made_up = Extent { start: start | capacity, len, ..scene.grants[1] };
        prop_assert!(!scene.hostile.write(&made_up, offset, &[1]));
        let honest = scene.grants[1];
        prop_assert!(!scene.hostile.write(&honest, offset.max(1000), &[1]));
        prop_assert!(!scene.hostile.write(&honest, 0, &[1; 1001]) && !scene.hostile.write(&honest, u64::MAX, &[1; 2]));
        prop_assert!(scene.hostile.write(&honest, 999, &[1]) && scene.hostile.write(&honest, 1000, &[]));
    }
}

#[test]
fn a_block_is_sealed_once_by_its_writer_with_what_it_has() {
    let scene = scene();
    let (plane, own) = (&scene.plane, Writer::Worker(HOSTILE));
    let before = plane.usage();
    let [theirs, mine] = [scene.grants[0].block, scene.grants[1].block];
    let seal = |id, writer, len| plane.seal(id, writer, len, Lease::default());
    let error = seal(theirs, own, 1000).unwrap_err().to_string();
    assert_eq!(error, format!("block {} cannot be sealed with 1000 bytes by this writer", theirs.index));
    for len in [1001, u64::MAX] {
        assert!(seal(mine, own, len).is_err() && plane.adopt(mine, own, len).is_err());
    }
    for writer in [Writer::Runtime, Writer::Ingress, Writer::Worker(HONEST)] {
        assert!(seal(mine, writer, 1).is_err());
        plane.discard(mine, writer);
    }
    plane.discard(theirs, own);
    assert!(scene.hostile.view(BlockId { generation: 0, ..mine }).is_none(), "nothing is published there");
    for id in [scene.objects[0], plane.locate(&scene.tensor).unwrap().0] {
        assert!(seal(id, own, 1).is_err() && plane.adopt(id, own, 1).is_err());
        plane.discard(id, own);
    }
    unchanged(&scene, before);
    let objref = seal(mine, own, 1000).unwrap();
    assert!(seal(mine, own, 1000).is_err() && plane.adopt(mine, own, 1000).is_err() && plane.object(objref).is_ok());
}

#[test]
fn a_worker_whose_pins_are_wild_keeps_memory_until_it_is_gone_and_no_longer() {
    let plane = plane(MIB);
    let pins = plane.add_worker(HOSTILE).unwrap();
    let len = std::fs::metadata(&pins).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&pins).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xFF; usize::try_from(len).unwrap()], 0).unwrap();
    let lease = Lease { cacheable: true, ..Lease::default() };
    let objrefs: Vec<_> = (0..8).map(|number| put(&plane, &signed(number, 128 << 10), lease.clone())).collect();
    assert!(plane.create(64).is_err(), "everything is pinned");
    assert!(plane.delete(objrefs[0]) && plane.create(64).is_err());
    assert_eq!((plane.usage().evicted, plane.kept()[0]), (0, (HOSTILE, 1)));
    assert!(plane.take(block(objrefs[1]), HOSTILE, 0).is_ok());
    plane.worker_gone(HOSTILE);
    assert_eq!(plane.usage().withdrawn, 0);
    assert!(plane.create(1 << 20).is_ok(), "all of it can be had again");
}
