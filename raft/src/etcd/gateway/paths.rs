//! Which path is which call, as in etcd's own protocol.

const KV: &str = "etcdserverpb.KV";
const WATCH: &str = "etcdserverpb.Watch";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const LOCK: &str = "v3lockpb.Lock";
const ELECTION: &str = "v3electionpb.Election";

/// A path behind `/v3/`, a service, and a method of it.
pub(super) const ALL: &[(&str, &str, &str)] = &[
    ("kv/range", KV, "Range"),
    ("kv/put", KV, "Put"),
    ("kv/deleterange", KV, "DeleteRange"),
    ("kv/txn", KV, "Txn"),
    ("kv/compaction", KV, "Compact"),
    ("watch", WATCH, "Watch"),
    ("lease/grant", LEASE, "LeaseGrant"),
    ("lease/revoke", LEASE, "LeaseRevoke"),
    ("kv/lease/revoke", LEASE, "LeaseRevoke"),
    ("lease/keepalive", LEASE, "LeaseKeepAlive"),
    ("lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("kv/lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("lease/leases", LEASE, "LeaseLeases"),
    ("kv/lease/leases", LEASE, "LeaseLeases"),
    ("cluster/member/add", CLUSTER, "MemberAdd"),
    ("cluster/member/remove", CLUSTER, "MemberRemove"),
    ("cluster/member/update", CLUSTER, "MemberUpdate"),
    ("cluster/member/list", CLUSTER, "MemberList"),
    ("cluster/member/promote", CLUSTER, "MemberPromote"),
    ("maintenance/alarm", MAINTENANCE, "Alarm"),
    ("maintenance/status", MAINTENANCE, "Status"),
    ("maintenance/defragment", MAINTENANCE, "Defragment"),
    ("maintenance/hash", MAINTENANCE, "Hash"),
    ("maintenance/snapshot", MAINTENANCE, "Snapshot"),
    ("maintenance/transfer-leadership", MAINTENANCE, "MoveLeader"),
    ("maintenance/downgrade", MAINTENANCE, "Downgrade"),
    ("auth/enable", AUTH, "AuthEnable"),
    ("auth/disable", AUTH, "AuthDisable"),
    ("auth/status", AUTH, "AuthStatus"),
    ("auth/authenticate", AUTH, "Authenticate"),
    ("auth/user/add", AUTH, "UserAdd"),
    ("auth/user/get", AUTH, "UserGet"),
    ("auth/user/list", AUTH, "UserList"),
    ("auth/user/delete", AUTH, "UserDelete"),
    ("auth/user/changepw", AUTH, "UserChangePassword"),
    ("auth/user/grant", AUTH, "UserGrantRole"),
    ("auth/user/revoke", AUTH, "UserRevokeRole"),
    ("auth/role/add", AUTH, "RoleAdd"),
    ("auth/role/get", AUTH, "RoleGet"),
    ("auth/role/list", AUTH, "RoleList"),
    ("auth/role/delete", AUTH, "RoleDelete"),
    ("auth/role/grant", AUTH, "RoleGrantPermission"),
    ("auth/role/revoke", AUTH, "RoleRevokePermission"),
    ("lock/lock", LOCK, "Lock"),
    ("lock/unlock", LOCK, "Unlock"),
    ("election/campaign", ELECTION, "Campaign"),
    ("election/proclaim", ELECTION, "Proclaim"),
    ("election/leader", ELECTION, "Leader"),
    ("election/observe", ELECTION, "Observe"),
    ("election/resign", ELECTION, "Resign"),
];
