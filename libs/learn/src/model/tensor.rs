//! Models as named tensors, the form in which they are stored.

/// The numbers of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TensorData {
    /// Single precision.
    F32(Vec<f32>),
    /// Indices.
    U32(Vec<u32>),
    /// Short indices.
    U16(Vec<u16>),
    /// Quantised numbers.
    I8(Vec<i8>),
}

impl TensorData {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I8(v) => v.len(),
        }
    }
}

/// A part of a stored model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Its name within the model.
    pub(crate) name: String,
    /// Row-major shape; as many numbers as it says.
    pub(crate) shape: Vec<usize>,
    /// The numbers.
    pub(crate) data: TensorData,
}

/// A stored model whose parts do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged model: {part}: {problem}")]
pub(crate) struct DamagedModel {
    /// Name of the part.
    pub(crate) part: String,
    /// What is wrong with it.
    pub(crate) problem: &'static str,
}

/// What is wrong with a part.
pub(super) fn damaged(part: impl Into<String>, problem: &'static str) -> DamagedModel {
    DamagedModel {
        part: part.into(),
        problem,
    }
}

impl Tensor {
    pub(crate) fn f32(name: impl Into<String>, shape: &[usize], data: Vec<f32>) -> Self {
        Self::new(name, shape, TensorData::F32(data))
    }

    pub(crate) fn u32(name: impl Into<String>, data: Vec<u32>) -> Self {
        let shape = [data.len()];
        Self::new(name, &shape, TensorData::U32(data))
    }

    pub(super) fn u16(name: impl Into<String>, data: Vec<u16>) -> Self {
        let shape = [data.len()];
        Self::new(name, &shape, TensorData::U16(data))
    }

    pub(crate) fn i8(name: impl Into<String>, data: Vec<i8>) -> Self {
        let shape = [data.len()];
        Self::new(name, &shape, TensorData::I8(data))
    }

    fn new(name: impl Into<String>, shape: &[usize], data: TensorData) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            data,
        }
    }
}

/// The parts of a model on their way back into it.
pub(super) struct Parts(Vec<Tensor>);

impl Parts {
    /// Takes the parts whose data are as long as their shapes say.
    pub(super) fn new(tensors: Vec<Tensor>) -> Result<Self, DamagedModel> {
        for tensor in &tensors {
            let size = tensor
                .shape
                .iter()
                .try_fold(1_usize, |size, &side| size.checked_mul(side));
            if size != Some(tensor.data.len()) {
                return Err(damaged(
                    tensor.name.clone(),
                    "the shape does not match the data",
                ));
            }
        }
        Ok(Self(tensors))
    }

    /// Whether there is such a part left.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|t| t.name == name)
    }

    fn take(&mut self, name: &str) -> Result<Tensor, DamagedModel> {
        let at = self.0.iter().position(|t| t.name == name);
        at.map(|at| self.0.swap_remove(at))
            .ok_or_else(|| damaged(name, "it is missing"))
    }

    /// Finite numbers and their shape.
    pub(super) fn floats(&mut self, name: &str) -> Result<(Vec<usize>, Vec<f32>), DamagedModel> {
        let tensor = self.take(name)?;
        let TensorData::F32(data) = tensor.data else {
            return Err(damaged(name, "it is not f32"));
        };
        if data.iter().any(|v| !v.is_finite()) {
            return Err(damaged(name, "a value is not finite"));
        }
        Ok((tensor.shape, data))
    }

    /// Indices.
    pub(super) fn words(&mut self, name: &str) -> Result<Vec<u32>, DamagedModel> {
        match self.take(name)?.data {
            TensorData::U32(data) => Ok(data),
            _ => Err(damaged(name, "it is not u32")),
        }
    }

    /// Short indices.
    pub(super) fn shorts(&mut self, name: &str) -> Result<Vec<u16>, DamagedModel> {
        match self.take(name)?.data {
            TensorData::U16(data) => Ok(data),
            _ => Err(damaged(name, "it is not u16")),
        }
    }
}
