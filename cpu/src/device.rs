use crate::info;
use crate::parallel::Threads;
use crate::plan::CpuPlan;
use graph::{Device, DeviceError, DeviceInfo, Graph, Plan, PlanOptions, WeightSource, Work, convolution_ways};
use rayon::ThreadPoolBuilder;
use std::sync::Arc;

/// This machine's processor. Needs no driver and is always there.
#[derive(Debug, Clone)]
pub struct CpuDevice {
    info: DeviceInfo,
    pool: Threads,
}

impl CpuDevice {
    /// Runs on that many threads; on rayon's global pool, one thread per core, when `None`.
    ///
    /// # Errors
    /// When the system cannot start the threads, or none are asked for.
    pub fn new(threads: Option<usize>) -> Result<CpuDevice, DeviceError> {
        let failed = |reason: String| DeviceError::Failed { device: "the native executor".into(), reason };
        let pool = match threads {
            None => None,
            Some(0) => return Err(failed("it cannot run on zero threads".into())),
            Some(threads) => {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                Some(Arc::new(pool.map_err(|error| failed(format!("cannot start {threads} threads: {error}")))?))
            }
        };
        let pool = Threads(pool);
        let info = info::info(pool.install(rayon::current_num_threads));
        Ok(CpuDevice { info, pool })
    }

    /// [`Device::plan`] with the plan's own type, which can also time each node.
    ///
    /// # Errors
    /// As [`Device::plan`].
    pub fn plan_native(
        &self,
        graph: &Graph,
        weights: &dyn WeightSource,
        options: PlanOptions,
    ) -> Result<CpuPlan, DeviceError> {
        CpuPlan::new(&self.info.name, self.pool.clone(), graph, weights, options)
    }
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn plan_async<'a>(
        &'a self,
        graph: &'a Graph,
        weights: &'a dyn WeightSource,
        options: PlanOptions,
    ) -> Work<'a, Box<dyn Plan>> {
        Box::pin(async move { Ok(Box::new(self.plan_native(graph, weights, options)?) as Box<dyn Plan>) })
    }

    fn ways(&self, graph: &Graph, _: &dyn WeightSource, _: PlanOptions) -> Vec<Vec<&'static str>> {
        graph.nodes().iter().map(|node| convolution_ways(graph, node)).collect()
    }
}
