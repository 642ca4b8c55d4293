"""Read an agent's socket by py-spiffe: print each X509-SVID, and a JWT-SVID that the agent has validated."""
import queue
import sys

from spiffe import JwtSource, TrustDomain, WorkloadApiClient, X509Source

socket = "unix://" + sys.argv[1]
changes = queue.Queue()
with X509Source(socket_path=socket, timeout_in_seconds=60) as source:
    source.subscribe_for_updates(lambda: changes.put(None))

    def show():
        svid = source.svid
        roots = {b.trust_domain.name: len(b.x509_authorities) for b in source.bundles}
        assert source.get_bundle_for_trust_domain(TrustDomain(svid.spiffe_id.trust_domain.name)) is not None
        print("x509", svid.spiffe_id, svid.leaf.serial_number, ",".join(sorted(roots)), flush=True)

    show()
    with JwtSource(socket_path=socket, timeout_in_seconds=60) as tokens:
        token = tokens.fetch_svid(audience={"db"})
        with WorkloadApiClient(socket_path=socket) as client:
            valid = client.validate_jwt_svid(token.token, "db")
        print("jwt", valid.spiffe_id, flush=True)
    while True:
        changes.get()
        show()
