//! Publishers that die, and publishers at the same time: readers never see a broken state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearside::error::Kind;
use nearside::store::publish::publish;

use super::faulty::{Fault, Faulty};
use super::package::{check_all, write};
use super::{each_store, runtime, wrapped};

#[test]
fn a_publisher_that_dies_at_any_write_breaks_nothing() {
    each_store(|store| {
        runtime().block_on(async {
            publish(&store, write("model", "1.0.0", 1).path(), |_| {}).await.unwrap();
            // A package of four blobs, two of which the store has: 2 + manifest + version document.
            for (index, fault) in [Fault::WriteFails, Fault::WriteIsDoneThenDead].into_iter().enumerate() {
                for n in 0.. {
                    let seed = 10 + (index as u8) * 100 + n as u8;
                    let version = format!("2.{index}.{n}");
                    let package = write("model", &version, seed);
                    let faulty = Faulty::new(&store, fault(n));
                    let writes = faulty.counter();
                    let before = check_all(&store).await;
                    let result = publish(&wrapped(faulty), package.path(), |_| {}).await;
                    let visible = check_all(&store).await - before;
                    let made = writes.load(Ordering::SeqCst);
                    let Err(error) = result else {
                        assert_eq!((n, made, visible), (4, 4, 1), "{fault:?}", fault = fault(n));
                        break;
                    };
                    assert_eq!(error.kind(), Kind::Io, "{error}");
                    // Only the last write makes the version visible.
                    let last = fault(n) == Fault::WriteIsDoneThenDead(3);
                    assert_eq!(visible, usize::from(last), "{:?}", fault(n));
                    // The next try goes on where the first one died.
                    let again = publish(&store, package.path(), |_| {}).await.unwrap();
                    assert_eq!(again.created, !last, "{:?}", fault(n));
                    assert_eq!(check_all(&store).await, before + 1);
                }
            }
        });
    });
}

#[test]
fn readers_beside_a_slow_publisher_see_all_or_nothing() {
    each_store(|store| {
        runtime().block_on(async {
            let package = write("model", "1.0.0", 1);
            let slow = wrapped(Faulty::new(&store, Fault::SlowWrites(Duration::from_millis(60))));
            let done = Arc::new(AtomicBool::new(false));
            let reader = tokio::spawn({
                let (store, done) = (store.clone(), Arc::clone(&done));
                async move {
                    let mut seen = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        seen.push(check_all(&store).await);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    seen
                }
            });
            publish(&slow, package.path(), |_| {}).await.unwrap();
            done.store(true, Ordering::SeqCst);
            let seen = reader.await.unwrap();
            assert!(seen.contains(&0) && seen.is_sorted(), "{seen:?}");
            assert_eq!(check_all(&store).await, 1);
        });
    });
}

#[test]
fn many_publishers_at_once() {
    each_store(|store| {
        runtime().block_on(async {
            // 20 of one package, 5 of others with the same version, and 25 of versions of their own.
            let mut packages = Vec::new();
            packages.extend((0..20).map(|_| write("same", "1.0.0", 1)));
            packages.extend((0..5).map(|i| write("same", "1.0.0", 2 + i)));
            packages.extend((0..25).map(|i| write("many", &format!("1.0.{i}"), i)));
            let results = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for (index, package) in packages.into_iter().enumerate() {
                let (store, results) = (store.clone(), Arc::clone(&results));
                tasks.push(tokio::spawn(async move {
                    let result = publish(&store, package.path(), |_| {}).await;
                    results.lock().unwrap().push((index, result));
                }));
            }
            for task in tasks {
                check_all(&store).await;
                task.await.unwrap();
            }
            let results = std::mem::take(&mut *results.lock().unwrap());
            let (mut created, mut winners) = (0, std::collections::BTreeSet::new());
            for (index, result) in &results {
                match result {
                    Ok(published) => {
                        created += usize::from(published.created);
                        if *index < 25 {
                            winners.insert(published.manifest);
                        }
                    }
                    Err(error) => {
                        assert!(*index < 25, "{error}");
                        assert_eq!(error.kind(), Kind::Conflict, "{error}");
                    }
                }
            }
            assert_eq!((created, winners.len()), (26, 1), "one content wins, and each version is made once");
            assert_eq!(check_all(&store).await, 26);
            assert_eq!(store.versions("many").await.unwrap().len(), 25);
        });
    });
}
