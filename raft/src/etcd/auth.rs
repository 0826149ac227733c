//! The service `Auth`: there are no users and roles. Who may use this API is decided by client
//! certificates, so authentication is never enabled, and calls answer as etcd's do then.

use tonic::{Request, Status};

use super::proto;
use super::proto::auth_server::Auth;
use super::{Etcd, Reply};

/// The revision of an authentication that was never changed.
const AUTH_REVISION: u64 = 1;

fn refused<T>(text: &str) -> Reply<T> {
    Err(Status::failed_precondition(format!("etcdserver: {text}")))
}

fn not_enabled<T>() -> Reply<T> {
    refused("authentication is not enabled")
}

fn no_user<T>() -> Reply<T> {
    refused("user name not found")
}

fn no_role<T>() -> Reply<T> {
    refused("role name not found")
}

#[tonic::async_trait]
impl Auth for Etcd {
    async fn auth_enable(
        &self,
        _: Request<proto::AuthEnableRequest>,
    ) -> Reply<proto::AuthEnableResponse> {
        refused("root user does not exist")
    }

    async fn auth_disable(
        &self,
        _: Request<proto::AuthDisableRequest>,
    ) -> Reply<proto::AuthDisableResponse> {
        Ok(proto::AuthDisableResponse { header: self.header_now() }.into())
    }

    async fn auth_status(
        &self,
        _: Request<proto::AuthStatusRequest>,
    ) -> Reply<proto::AuthStatusResponse> {
        let header = self.header_now();
        let response =
            proto::AuthStatusResponse { header, enabled: false, auth_revision: AUTH_REVISION };
        Ok(response.into())
    }

    async fn authenticate(
        &self,
        _: Request<proto::AuthenticateRequest>,
    ) -> Reply<proto::AuthenticateResponse> {
        not_enabled()
    }

    async fn user_add(
        &self,
        _: Request<proto::AuthUserAddRequest>,
    ) -> Reply<proto::AuthUserAddResponse> {
        not_enabled()
    }

    async fn user_get(
        &self,
        _: Request<proto::AuthUserGetRequest>,
    ) -> Reply<proto::AuthUserGetResponse> {
        no_user()
    }

    async fn user_list(
        &self,
        _: Request<proto::AuthUserListRequest>,
    ) -> Reply<proto::AuthUserListResponse> {
        let (header, users) = (self.header_now(), Vec::new());
        Ok(proto::AuthUserListResponse { header, users }.into())
    }

    async fn user_delete(
        &self,
        _: Request<proto::AuthUserDeleteRequest>,
    ) -> Reply<proto::AuthUserDeleteResponse> {
        no_user()
    }

    async fn user_change_password(
        &self,
        _: Request<proto::AuthUserChangePasswordRequest>,
    ) -> Reply<proto::AuthUserChangePasswordResponse> {
        no_user()
    }

    async fn user_grant_role(
        &self,
        _: Request<proto::AuthUserGrantRoleRequest>,
    ) -> Reply<proto::AuthUserGrantRoleResponse> {
        no_user()
    }

    async fn user_revoke_role(
        &self,
        _: Request<proto::AuthUserRevokeRoleRequest>,
    ) -> Reply<proto::AuthUserRevokeRoleResponse> {
        no_user()
    }

    async fn role_add(
        &self,
        _: Request<proto::AuthRoleAddRequest>,
    ) -> Reply<proto::AuthRoleAddResponse> {
        not_enabled()
    }

    async fn role_get(
        &self,
        _: Request<proto::AuthRoleGetRequest>,
    ) -> Reply<proto::AuthRoleGetResponse> {
        no_role()
    }

    async fn role_list(
        &self,
        _: Request<proto::AuthRoleListRequest>,
    ) -> Reply<proto::AuthRoleListResponse> {
        let (header, roles) = (self.header_now(), Vec::new());
        Ok(proto::AuthRoleListResponse { header, roles }.into())
    }

    async fn role_delete(
        &self,
        _: Request<proto::AuthRoleDeleteRequest>,
    ) -> Reply<proto::AuthRoleDeleteResponse> {
        no_role()
    }

    async fn role_grant_permission(
        &self,
        _: Request<proto::AuthRoleGrantPermissionRequest>,
    ) -> Reply<proto::AuthRoleGrantPermissionResponse> {
        no_role()
    }

    async fn role_revoke_permission(
        &self,
        _: Request<proto::AuthRoleRevokePermissionRequest>,
    ) -> Reply<proto::AuthRoleRevokePermissionResponse> {
        no_role()
    }
}
