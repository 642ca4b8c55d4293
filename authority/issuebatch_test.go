package authority

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/bundle"
)

const ci = "spiffe://eu.example.org/ci"

// TestBatch sends what can be issued and what cannot in one batch, over gRPC, as a caller that may issue below /web.
func TestBatch(t *testing.T) {
	log := auditFile(t)
	f, c := newSingle(t, func(c *Config) { c.Audit = log })
	a := serveAPI(t, c, log)
	a.grant(ci, "/web")
	client := a.dial(ci)
	good := func(id string) *ententev1.IssueX509SVIDRequest { return x509Request(t, id) }
	broken := good(workload(3))
	broken.Csr[len(broken.Csr)-1] ^= 1
	long := good(workload(4))
	long.Ttl = durationpb.New(2 * time.Hour)
	named := good(workload(5))
	named.DnsNames = []string{"web.example.org"}
	requests := []*ententev1.IssueX509SVIDRequest{
		good(workload(1)), good("spiffe://eu.example.org/website"), broken, good("spiffe://us.example.org/web/1"),
		long, good("spiffe://eu.example.org/entente/member/member-1"), nil, good(workload(2)), named,
	}
	response, err := client.IssueX509SVIDs(t.Context(),
		&ententev1.IssueX509SVIDsRequest{TrustDomain: home.Name(), Requests: requests})
	require.NoError(t, err)
	require.Len(t, response.GetResults(), len(requests))
	verifier, _, err := bundle.Parse(home, response.GetBundle())
	require.NoError(t, err)
	for i, id := range map[int]string{0: workload(1), 7: workload(2)} {
		svid := response.GetResults()[i].GetSvid()
		require.NotNil(t, svid, "%v", response.GetResults()[i])
		require.Empty(t, svid.GetBundle())
		got, _, err := x509svid.ParseAndVerify(svid.GetCertificates(), verifier, x509svid.WithTime(f.now()))
		require.NoError(t, err)
		require.Equal(t, id, got.String())
	}
	for i, want := range map[int]struct {
		code codes.Code
		want string
	}{
		1: {codes.PermissionDenied, "it needs the role issuer or admin in eu.example.org for the path /website"},
		2: {codes.InvalidArgument, "csr is not signed by the key that it holds"},
		3: {
			codes.InvalidArgument,
			"spiffe_id spiffe://us.example.org/web/1 is not in eu.example.org, the trust domain of the batch; send " +
				"one batch for each trust domain",
		},
		4: {codes.InvalidArgument, "ttl is 2h0m0s; the domain allows 1h0m0s"},
		5: {codes.PermissionDenied, "/entente/member/member-1"},
		8: {
			codes.PermissionDenied,
			"for the path /web/5 with the DNS names web.example.org, and has issuer in eu.example.org below /web. " +
				"To allow it, an administrator runs: entente access grant issuer --spiffe-id " +
				"spiffe://eu.example.org/ci --domain eu.example.org --path /web/5 --dns web.example.org",
		},
		6: {codes.InvalidArgument, `spiffe_id "" is not a SPIFFE ID`},
	} {
		failure := response.GetResults()[i].GetFailure()
		require.Equal(t, want.code, codes.Code(failure.GetCode()), "%v", failure)
		require.Contains(t, failure.GetMessage(), want.want)
	}
	require.Equal(
		t,
		map[string]int{
			"begun " + workload(1): 1,
			"done " + workload(1):  1,
			"begun " + workload(2): 1,
			"done " + workload(2):  1,
			"denied ":              1,
		},
		linesOf(log, ci),
	)

	tokens, err := client.IssueJWTSVIDs(
		t.Context(),
		&ententev1.IssueJWTSVIDsRequest{TrustDomain: home.Name(), Requests: []*ententev1.IssueJWTSVIDRequest{
			{
				SpiffeId: workload(1),
				Audience: []string{"db"},
			}, {SpiffeId: workload(1)}, {SpiffeId: "spiffe://eu.example.org/db", Audience: []string{"db"}},
		}},
	)
	require.NoError(t, err)
	token, err := jwtsvid.ParseAndValidate(tokens.GetResults()[0].GetSvid().GetToken(), verifier, []string{"db"})
	require.NoError(t, err)
	require.Equal(t, workload(1), token.ID.String())
	require.Contains(t, tokens.GetResults()[1].GetFailure().GetMessage(), "audience is empty")
	require.Equal(t, codes.PermissionDenied, codes.Code(tokens.GetResults()[2].GetFailure().GetCode()))
}

// linesOf counts a caller's lines about SVIDs in the audit log.
func linesOf(log *audit.Log, caller string) map[string]int {
	tail := log.Tail(audit.MaxTailLines, false, nil)
	defer tail.Close()
	lines := map[string]int{}
	for {
		r, err := tail.Next(context.Background())
		if err != nil {
			return lines
		}
		if r.Caller == caller && strings.Contains(r.Action, "svid") || strings.Contains(r.Action, "SVID") {
			lines[r.Result+" "+r.Object]++
		}
	}
}

// TestBatchRefusals: a batch is refused as a whole only for what holds for all of it.
func TestBatchRefusals(t *testing.T) {
	log := auditFile(t)
	_, c := newSingle(t, func(c *Config) { c.Audit = log })
	a := serveAPI(t, c, log)
	a.grant(ci, "/web")
	client := a.dial(ci)
	for name, test := range map[string]struct {
		domain   string
		requests int
		code     codes.Code
		want     string
	}{
		"no domain":      {"", 1, codes.InvalidArgument, "trust domain"},
		"another domain": {"us.example.org", 1, codes.PermissionDenied, "it needs the role issuer or admin"},
		"empty":          {home.Name(), 0, codes.InvalidArgument, "the batch holds 0 requests; send 1 to 100"},
		"too many":       {home.Name(), 101, codes.InvalidArgument, "the batch holds 101 requests; send 1 to 100"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.IssueX509SVIDs(
				t.Context(),
				&ententev1.IssueX509SVIDsRequest{
					TrustDomain: test.domain,
					Requests:    make([]*ententev1.IssueX509SVIDRequest, test.requests),
				},
			)
			require.Equal(t, test.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, test.want)
			_, err = client.IssueJWTSVIDs(
				t.Context(),
				&ententev1.IssueJWTSVIDsRequest{
					TrustDomain: test.domain,
					Requests:    make([]*ententev1.IssueJWTSVIDRequest, test.requests),
				},
			)
			require.Equal(t, test.code, status.Code(err), "%v", err)
		})
	}
	_, err := a.dial("spiffe://eu.example.org/stranger").
		IssueX509SVIDs(t.Context(), &ententev1.IssueX509SVIDsRequest{
			TrustDomain: home.Name(), Requests: []*ententev1.IssueX509SVIDRequest{x509Request(t, workload(1))},
		})
	require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
}

// TestBatchPassedOn: a member without an authority has each request of a batch signed elsewhere.
func TestBatchPassedOn(t *testing.T) {
	f := newThree(t, nil)
	i := slices.IndexFunc(f.nodes, func(c *node) bool { return c.issuer.State().Domains[home].Signer(plan.X509) == "" })
	require.GreaterOrEqual(t, i, 0, "the second and third authority wait until everybody can know them")
	c := f.nodes[i]
	ctx := access.WithCaller(context.Background(), access.SocketCaller(0, 1))
	response, err := c.SVIDService().
		IssueX509SVIDs(ctx, &ententev1.IssueX509SVIDsRequest{
			TrustDomain: home.Name(),
			Requests:    []*ententev1.IssueX509SVIDRequest{x509Request(t, workload(1)), x509Request(t, workload(2))},
		})
	require.NoError(t, err)
	for _, result := range response.GetResults() {
		require.NotNil(t, result.GetSvid(), "%v", result.GetFailure())
	}
	require.NotEmpty(t, response.GetBundle())
}

// TestRateLimit: a caller that requests too much gets the time after which to retry, and other callers are not
// affected.
func TestRateLimit(t *testing.T) {
	f, c := newSingle(t, func(c *Config) { c.IssueRate, c.IssueBurst = 10, 3 })
	issue := func(caller access.Caller) error {
		_, err := c.SVIDService().IssueJWTSVID(access.WithCaller(context.Background(), caller), jwtRequest("a"))
		return err
	}
	one, other := access.CallerFrom(caller), access.SocketCaller(0, 7)
	for range 3 {
		require.NoError(t, issue(one))
	}
	err := issue(one)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.EqualError(
		t,
		err,
		"rpc error: code = ResourceExhausted desc = spiffe://eu.example.org/ci requested more than 10 SVIDs a "+
			"second (and 3 at once) from this member; retry in 101ms, or on another member",
	)
	details := status.Convert(err).Details()
	require.Len(t, details, 1)
	require.Equal(t, 101*time.Millisecond, details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration())
	require.NoError(t, issue(other), "another caller has a share of its own")
	require.NoError(t, issue(access.SocketCaller(0, 8)))
	require.NoError(t, issue(access.SocketCaller(0, 9)))
	require.Equal(t, codes.ResourceExhausted, status.Code(issue(access.SocketCaller(0, 10))),
		"a new process is no new caller")
	f.mu.Lock()
	f.ahead += 101 * time.Millisecond
	f.mu.Unlock()
	require.NoError(t, issue(one), "its time to retry has come")

	// In a batch each request counts, and has its own time after which to retry.
	f.mu.Lock()
	f.ahead += time.Second
	f.mu.Unlock()
	batch := &ententev1.IssueJWTSVIDsRequest{TrustDomain: home.Name()}
	for range 5 {
		batch.Requests = append(batch.Requests,
			jwtRequest("a"))
	}
	response, err := c.SVIDService().IssueJWTSVIDs(access.WithCaller(context.Background(), other), batch)
	require.NoError(t, err)
	issued, limited := 0, 0
	for _, result := range response.GetResults() {
		if result.GetSvid() != nil {
			issued++
		} else if codes.Code(result.GetFailure().GetCode()) == codes.ResourceExhausted &&
			result.GetFailure().GetRetryDelay().AsDuration() == 101*time.Millisecond {
			limited++
		}
	}
	require.Equal(t, 3, issued)
	require.Equal(t, 2, limited)
	require.Equal(t, 4.0, c.metricSum("entente_authority_rate_limited_total"))
}

// TestRetryInfoReachesTheClient: the details of a refusal pass guard and network.
func TestRetryInfoReachesTheClient(t *testing.T) {
	log := auditFile(t)
	_, c := newSingle(t, func(c *Config) { c.Audit, c.IssueRate, c.IssueBurst = log, 1, 1 })
	a := serveAPI(t, c, log)
	a.grant(ci, "/web")
	client := a.dial(ci)
	_, err := client.IssueX509SVID(t.Context(), x509Request(t, workload(1)))
	require.NoError(t, err)
	_, err = client.IssueX509SVID(t.Context(), x509Request(t, workload(1)))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	var delays []time.Duration
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			delays = append(delays, info.GetRetryDelay().AsDuration())
		}
	}
	require.Equal(t, []time.Duration{time.Second + time.Millisecond}, delays)
	_, err = client.IssueX509SVID(t.Context(), x509Request(t, "spiffe://eu.example.org/db"))
	require.Equal(t, codes.PermissionDenied, status.Code(err), "a denial does not depend on the rate")
}
