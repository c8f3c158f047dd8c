//! Whose plans stay on a device when memory is short: one rule for all pipelines that share it.

use crate::error::PipelineError;
use graph::{
    Activations, Device, DeviceError, DeviceInfo, Graph, MemoryUse, Plan, PlanOptions, WeightSource, estimate_memory,
    passes,
};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A device that pipelines share, on one thread or on several.
///
/// It knows every plan that its pipelines hold on it. Where a new one finds no room, the plan that was used longest ago is let go, whichever
/// pipeline it belongs to, and the next, until there is room; its pipeline makes it again when it needs it.
#[derive(Clone)]
pub struct SharedDevice(Arc<Shared>);

struct Shared {
    device: Box<dyn Device>,
    /// Held by whoever makes a plan: two at once would take each other's room.
    planning: async_lock::Mutex<()>,
    places: Mutex<Vec<Weak<dyn Held>>>,
    /// Counts uses, to tell which was last.
    uses: AtomicU64,
}

impl fmt::Debug for SharedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedDevice").field(self.0.device.info()).finish()
    }
}

impl SharedDevice {
    /// Shares a device.
    #[must_use]
    pub fn new(device: Box<dyn Device>) -> Self {
        Self(Arc::new(Shared {
            device,
            planning: async_lock::Mutex::default(),
            places: Mutex::default(),
            uses: AtomicU64::default(),
        }))
    }

    /// How it presents itself.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        self.0.device.info()
    }

    /// Memory that the plans of all pipelines hold on it now.
    #[must_use]
    pub fn memory(&self) -> MemoryUse {
        let places: Vec<Arc<dyn Held>> = lock(&self.0.places).iter().filter_map(Weak::upgrade).collect();
        places.iter().map(|place| place.memory()).fold(MemoryUse::default(), add)
    }

    /// The device itself, for a graph of one's own. Plans made on it directly are not let go when memory is short.
    #[must_use]
    pub fn device(&self) -> &dyn Device {
        self.0.device.as_ref()
    }

    /// Lets the plan go that was used longest ago, other than one; tells whether there was any.
    async fn let_one_go(&self, but: *const ()) -> bool {
        let mut places: Vec<Arc<dyn Held>> = lock(&self.0.places).iter().filter_map(Weak::upgrade).collect();
        places.retain(|place| !std::ptr::addr_eq(Arc::as_ptr(place), but) && place.is_held());
        places.sort_by_key(|place| place.last_use());
        for place in places {
            if place.let_go().await {
                return true;
            }
        }
        false
    }
}

/// Where the parts of a model are planned, and how.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) shared: SharedDevice,
    pub(crate) options: PlanOptions,
}

impl Host {
    /// Plans a graph after the passes that every graph goes through.
    pub(crate) async fn plan(&self, graph: &Graph, weights: &dyn WeightSource) -> Result<Box<dyn Plan>, PipelineError> {
        // Text encoders and autoencoders: activations of the latter are beyond half precision in some models (diffusers'
        // `force_upcast`), and neither takes much of a run.
        let options = PlanOptions { activations: Activations::F32, ..self.options };
        Ok(self.shared.device().plan_async(&passes::optimize(graph), weights, options).await?)
    }

    /// What such a plan will hold, without making it.
    pub(crate) fn estimate(&self, graph: &Graph, weights: &dyn WeightSource) -> MemoryUse {
        estimate_memory(&passes::optimize(graph), weights, self.options, self.shared.info().kind)
    }
}

/// What can be held on a device: a plan, with what belongs to it.
pub(crate) trait Resident: Send {
    /// Memory it holds.
    fn memory(&self) -> MemoryUse;
}

impl Resident for Box<dyn Plan> {
    fn memory(&self) -> MemoryUse {
        self.as_ref().memory()
    }
}

/// A place as the manager sees it.
trait Held: Send + Sync {
    fn is_held(&self) -> bool;
    fn last_use(&self) -> u64;
    fn memory(&self) -> MemoryUse;
    /// Waits for whoever uses it now, and lets it go; tells whether it was still there.
    fn let_go(&self) -> Pin<Box<dyn Future<Output = bool> + '_>>;
}

struct Slot<S> {
    /// Whoever works with it holds it across waiting for the device.
    resident: async_lock::Mutex<Option<S>>,
    held: AtomicBool,
    /// What it takes, for those who ask while somebody works with it.
    memory: Mutex<MemoryUse>,
    last_use: AtomicU64,
}

impl<S: Resident> Held for Slot<S> {
    fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    fn memory(&self) -> MemoryUse {
        *lock(&self.memory)
    }

    fn let_go(&self) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async {
            let mut resident = self.resident.lock().await;
            self.hold(None);
            resident.take().is_some()
        })
    }
}

impl<S: Resident> Slot<S> {
    /// Notes what is in it from now on.
    fn hold(&self, resident: Option<&S>) {
        *lock(&self.memory) = resident.map_or(MemoryUse::default(), Resident::memory);
        self.held.store(resident.is_some(), Ordering::Release);
    }
}

/// A place on a device for one plan. It may be empty at any time: [`with`](Self::with) makes the plan again where it is.
pub(crate) struct Place<S> {
    device: SharedDevice,
    slot: Arc<Slot<S>>,
}

impl<S: Resident + 'static> Place<S> {
    /// An empty one.
    pub(crate) fn new(device: &SharedDevice) -> Self {
        let slot = Arc::new(Slot {
            resident: async_lock::Mutex::new(None),
            held: AtomicBool::default(),
            memory: Mutex::default(),
            last_use: AtomicU64::default(),
        });
        let held: Weak<Slot<S>> = Arc::downgrade(&slot);
        let mut places = lock(&device.0.places);
        places.retain(|place| place.strong_count() > 0);
        places.push(held);
        Self { device: device.clone(), slot }
    }

    /// Works with the plan that is here; `make` makes it first if there is none.
    ///
    /// Neither closure may come back to a place of the same device: whoever makes a plan may have to wait for whoever uses one, so
    /// whoever uses one must not wait for a plan.
    pub(crate) async fn with<R>(
        &self,
        make: impl AsyncFn() -> Result<S, PipelineError>,
        work: impl AsyncFnOnce(&mut S) -> Result<R, PipelineError>,
    ) -> Result<R, PipelineError> {
        self.slot.last_use.store(self.device.0.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut place = self.slot.resident.lock().await;
        if let Some(resident) = place.as_mut() {
            return work(resident).await;
        }
        drop(place);
        // In this order everywhere: the right to plan, then a place.
        let planning = self.device.0.planning.lock().await;
        let mut place = self.slot.resident.lock().await;
        let resident = match place.as_mut() {
            Some(resident) => resident,
            None => {
                let made = loop {
                    match make().await {
                        Err(error) if is_full(&error) && self.device.let_one_go(self.address()).await => {}
                        result => break result?,
                    }
                };
                self.slot.hold(Some(&made));
                place.insert(made)
            }
        };
        drop(planning);
        work(resident).await
    }

    /// Lets the plan go; tells whether there was one.
    pub(crate) async fn let_go(&self) -> bool {
        self.slot.let_go().await
    }

    /// Memory that the plan here holds.
    pub(crate) fn memory(&self) -> MemoryUse {
        self.slot.memory()
    }

    fn address(&self) -> *const () {
        Arc::as_ptr(&self.slot).cast()
    }
}

/// Places by what their plans depend on. A plan that nobody is using goes as soon as another is wanted, unless some are to be spared; runs that are
/// under way keep theirs.
pub(crate) struct Places<K, S> {
    /// The last used last.
    known: Mutex<Vec<(K, Arc<Place<S>>)>>,
    /// How many that nobody is using stay when another is wanted.
    spared: AtomicUsize,
}

impl<K, S> Default for Places<K, S> {
    fn default() -> Self {
        Self { known: Mutex::default(), spared: AtomicUsize::default() }
    }
}

impl<K: PartialEq + Clone, S: Resident + 'static> Places<K, S> {
    /// The place of this key. Whoever holds it keeps its plan from being replaced by another key's.
    pub(crate) fn at(&self, device: &SharedDevice, key: &K) -> Arc<Place<S>> {
        let mut known = lock(&self.known);
        if let Some(at) = known.iter().position(|(own, _)| own == key) {
            let found = known.remove(at);
            let place = Arc::clone(&found.1);
            known.push(found);
            return place;
        }
        let is_unused = |place: &Arc<Place<S>>| Arc::strong_count(place) == 1;
        let unused = known.iter().filter(|(_, place)| is_unused(place)).count();
        let mut surplus = unused.saturating_sub(self.spared.load(Ordering::Relaxed));
        known.retain(|(_, place)| {
            let goes = surplus > 0 && is_unused(place);
            surplus -= usize::from(goes);
            !goes
        });
        let place = Arc::new(Place::new(device));
        known.push((key.clone(), Arc::clone(&place)));
        place
    }

    /// Lets as many plans stay that nobody is using when another is wanted. They still go where memory is short.
    pub(crate) fn spare(&self, count: usize) {
        self.spared.store(count, Ordering::Relaxed);
    }

    /// Lets all plans go; tells whether there were any.
    pub(crate) async fn let_go(&self) -> bool {
        let known: Vec<_> = lock(&self.known).iter().map(|(_, place)| Arc::clone(place)).collect();
        let mut any = false;
        for place in known {
            any |= place.let_go().await;
        }
        any
    }

    /// Memory that the plans hold together.
    pub(crate) fn memory(&self) -> MemoryUse {
        let known: Vec<_> = lock(&self.known).iter().map(|(_, place)| Arc::clone(place)).collect();
        known.iter().map(|place| place.memory()).fold(MemoryUse::default(), add)
    }
}

#[cfg(not(target_family = "wasm"))]
impl<K: PartialEq> Places<K, Box<dyn Plan>> {
    /// What every operation of this key's plan takes; nothing where it is not held.
    pub(crate) fn profile(&self, key: &K) -> Result<Vec<graph::NodeTime>, PipelineError> {
        let known = lock(&self.known);
        let place = known.iter().find(|(own, _)| own == key).map(|(_, place)| Arc::clone(place));
        drop(known);
        let Some(place) = place else { return Ok(Vec::new()) };
        let mut resident = place.slot.resident.lock_blocking();
        Ok(resident.as_mut().map(|plan| plan.profile()).transpose()?.unwrap_or_default())
    }
}

/// The sum of two uses.
pub(crate) fn add(a: MemoryUse, b: MemoryUse) -> MemoryUse {
    MemoryUse { weights: a.weights + b.weights, activations: a.activations + b.activations }
}

/// Whether a device had no room for something.
pub(crate) fn is_full(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Device(DeviceError::OutOfMemory { .. }))
}

/// Locks a mutex, also one that a panicking thread has poisoned: what these mutexes hold is put in or taken out whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
