//! Other objects of the store, such as the files of a model, for reading alone.

use bytes::Bytes;
use object_store::path::Path;

use crate::{
    Store,
    error::{Result, StoreError},
};

impl Store {
    /// Reads an object by its path; `None` where there is none. One of more than `most`
    /// bytes is not read, and its size is the error.
    pub async fn object(
        &self,
        path: &str,
        most: u64,
    ) -> Result<Option<std::result::Result<Bytes, u64>>> {
        let path = Path::from(path);
        let size = match self.head(&path).await {
            Ok(meta) => meta.size,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if size > most {
            return Ok(Some(Err(size)));
        }
        Ok(Some(Ok(self.get(&path).await?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[tokio::test]
    async fn an_object_is_read_unless_it_is_too_large() {
        let store = Store::open("memory://", &BTreeMap::new()).unwrap();
        store
            .create(&Path::from("models/m/config.json"), "four".into())
            .await
            .unwrap();
        let read = async |path: &str, most| store.object(path, most).await.unwrap();
        assert_eq!(
            read("models/m/config.json", 4).await,
            Some(Ok("four".into()))
        );
        assert_eq!(read("/models/m/config.json", 3).await, Some(Err(4)));
        assert_eq!(read("models/m/other.json", 4).await, None);
    }
}
