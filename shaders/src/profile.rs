/// What an adapter can do, as far as choosing and composing kernels depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For messages.
    pub name: String,
    /// Shaders may use `f16` in storage.
    pub shader_f16: bool,
    /// Shaders may add up within subgroups.
    pub subgroups: bool,
    /// Invocations of a subgroup, where all subgroups are of one size and multiply matrices of 8 × 8 `f32` together.
    pub cooperative: Option<u32>,
    /// Products by weights of eight bits may round their other factor to eight bits, too, and multiply whole numbers.
    pub integer_products: bool,
    /// Storage bindings of one shader stage.
    pub max_storage_bindings: u32,
    /// Invocations of one workgroup.
    pub max_workgroup_invocations: u32,
    /// Extent of a workgroup in each dimension.
    pub max_workgroup_size: [u32; 3],
    /// Bytes of workgroup memory.
    pub max_workgroup_storage: u32,
    /// Workgroups of one dispatch in each dimension.
    pub max_groups: u32,
    /// Software adapters run the invocations of a workgroup as coroutines: a barrier costs more than it saves there.
    pub barriers_are_slow: bool,
}

impl Profile {
    /// The limits that WebGPU guarantees everywhere.
    #[must_use]
    pub fn web_default() -> Self {
        Self {
            name: "web default".into(),
            shader_f16: false,
            subgroups: false,
            cooperative: None,
            integer_products: false,
            max_storage_bindings: 8,
            max_workgroup_invocations: 256,
            max_workgroup_size: [256, 256, 64],
            max_workgroup_storage: 16_384,
            max_groups: 65_535,
            barriers_are_slow: false,
        }
    }

    /// Mesa's software Vulkan driver.
    #[must_use]
    pub fn lavapipe() -> Self {
        Self {
            name: "lavapipe".into(),
            shader_f16: true,
            subgroups: true,
            cooperative: None,
            integer_products: true,
            max_storage_bindings: 16,
            max_workgroup_invocations: 1024,
            max_workgroup_size: [1024, 1024, 1024],
            max_workgroup_storage: 32_768,
            max_groups: 65_535,
            barriers_are_slow: true,
        }
    }

    /// A discrete graphics card of recent years.
    #[must_use]
    pub fn desktop() -> Self {
        Self {
            name: "desktop".into(),
            shader_f16: true,
            subgroups: true,
            cooperative: None,
            integer_products: true,
            max_storage_bindings: 16,
            max_workgroup_invocations: 1024,
            max_workgroup_size: [1024, 1024, 64],
            max_workgroup_storage: 49_152,
            max_groups: 65_535,
            barriers_are_slow: false,
        }
    }

    /// A graphics processor with units for small matrices, such as Apple's.
    #[must_use]
    pub fn cooperative() -> Self {
        Self { name: "cooperative".into(), cooperative: Some(32), max_workgroup_storage: 32_768, ..Self::desktop() }
    }
}
