//! The service `KV`.

use kontiki_storage::kv::{InvalidRequest, Op, OpResponse, Revision, Txn};
use prost::Message;
use tonic::{Request, Status};

use super::proto;
use super::proto::kv_server::Kv as KvService;
use super::{Etcd, REQUEST_BYTES_MAX, Reply, convert, error, filter};

/// What one operation gave, and at which revision.
struct Done {
    revision: Revision,
    response: OpResponse,
}

impl Etcd {
    /// Does one operation as a transaction of its own.
    async fn one(&self, op: Op) -> Result<Done, Status> {
        let txn = Txn { success: vec![op], ..Txn::default() };
        let mut done = self.kv.txn(txn.into()).await.map_err(error::refused)?;
        let response =
            done.responses.pop().ok_or_else(|| Status::internal("the operation has no answer"))?;
        Ok(Done { revision: done.revision, response })
    }

    /// Where neither the key nor the lease of a put is there, etcd says so of the lease; in a
    /// transaction, of the key.
    fn lease_first(&self, refused: Status, lease: i64) -> Status {
        let is_of_key = refused.message() == error::key_not_found().message();
        if is_of_key && lease != 0 && self.node.store().lease(lease).is_none() {
            return error::refused(InvalidRequest::LeaseNotFound.into());
        }
        refused
    }
}

fn check_size(bytes: usize) -> Result<(), Status> {
    if bytes > REQUEST_BYTES_MAX {
        return Err(error::too_large());
    }
    Ok(())
}

#[tonic::async_trait]
impl KvService for Etcd {
    async fn range(&self, request: Request<proto::RangeRequest>) -> Reply<proto::RangeResponse> {
        let request = request.into_inner();
        let plan = filter::Plan::of(&request).map_err(|e| *e)?;
        let asked = convert::range(&request, &plan).map_err(|e| *e)?;
        let response = self.kv.range(asked).await.map_err(error::refused)?;
        let header = self.header(response.revision);
        Ok(proto::RangeResponse { header, ..plan.finish(response) }.into())
    }

    async fn put(&self, request: Request<proto::PutRequest>) -> Reply<proto::PutResponse> {
        let request = request.into_inner();
        let (bytes, lease) = (request.encoded_len(), request.lease);
        let put = convert::put(request).map_err(|e| *e)?;
        check_size(bytes)?;
        let done = self.one(put).await.map_err(|refused| self.lease_first(refused, lease))?;
        let OpResponse::Put { prev_kv } = done.response else {
            return Err(Status::internal("a put came to something else"));
        };
        let header = self.header(done.revision);
        Ok(proto::PutResponse { header, prev_kv: prev_kv.map(convert::key_value) }.into())
    }

    async fn delete_range(
        &self,
        request: Request<proto::DeleteRangeRequest>,
    ) -> Reply<proto::DeleteRangeResponse> {
        let op = convert::delete_range(request.into_inner()).map_err(|e| *e)?;
        let done = self.one(op).await?;
        let OpResponse::DeleteRange { deleted, prev_kvs } = done.response else {
            return Err(Status::internal("a deletion came to something else"));
        };
        let response = proto::DeleteRangeResponse {
            header: self.header(done.revision),
            deleted: convert::signed(deleted),
            prev_kvs: prev_kvs.into_iter().map(convert::key_value).collect(),
        };
        Ok(response.into())
    }

    async fn txn(&self, request: Request<proto::TxnRequest>) -> Reply<proto::TxnResponse> {
        let request = request.into_inner();
        let txn = convert::txn(&request).map_err(|e| *e)?;
        check_size(request.encoded_len())?;
        let done = self.kv.txn(txn.into()).await.map_err(error::refused)?;
        let header = self.header(done.revision);
        let response = convert::txn_response(&request, done).map_err(|e| *e)?;
        Ok(proto::TxnResponse { header, ..response }.into())
    }

    async fn compact(
        &self,
        request: Request<proto::CompactionRequest>,
    ) -> Reply<proto::CompactionResponse> {
        // What is forgotten is removed a little with each write: `physical` has nothing to wait
        // for, since the answers are those of a compacted store from now on.
        let revision = convert::revision(request.into_inner().revision).unwrap_or_default();
        self.kv.compact(revision).await.map_err(error::refused)?;
        Ok(proto::CompactionResponse { header: self.header_now() }.into())
    }
}
