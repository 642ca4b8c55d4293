package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestCallersWithoutAGrantCostLittle: many callers with SVIDs and without a grant leave requests of 2 MiB unfinished
// and open watches that they do not read. None of that is admitted, and together it costs the member less than 64 MiB,
// while a caller with a grant is served.
func TestCallersWithoutAGrantCostLittle(t *testing.T) {
	const (
		callers     = 8
		connections = 16 // the most that one caller may have
		calls       = 24 // on each connection, of each kind
		allowed     = 64 << 20
	)
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("left out: the memory of a process, which is read from /proc of Linux")
	}
	c := newCluster(t, "eu", 1, "")
	p := c.members[0]
	var all []workload
	for i := range callers {
		all = append(all, issue(t, p, "spiffe://eu.example.org/stranger/"+string(rune('a'+i))))
	}
	before := residentMemory(t, p.cmd)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	var mu sync.Mutex
	ended := map[string]int{}
	begun := make(chan struct{}, callers*connections*calls*2)
	call := func(conn *grpc.ClientConn, method string, request any) {
		defer tasks.Done()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
		if err == nil {
			err = stream.SendMsg(request) // it fills the window, and is never complete
		}
		if err == nil || errors.Is(err, io.EOF) { // it has ended, and the status says how
			err = stream.RecvMsg(&ententev1.WatchBundlesResponse{})
		}
		how := status.Code(err).String()
		if err == nil || errors.Is(err, io.EOF) {
			how = "admitted"
		}
		mu.Lock()
		ended[how]++
		mu.Unlock()
		begun <- struct{}{}
	}
	large := &ententev1.IssueX509SVIDRequest{SpiffeId: "spiffe://eu.example.org/" + strings.Repeat("x", 2<<20-1024)}
	for _, w := range all {
		tls := tlsconfig.MTLSClientConfig(w, w.bundle, tlsconfig.AuthorizeAny())
		for range connections {
			conn, err := grpc.NewClient(p.api, grpc.WithTransportCredentials(credentials.NewTLS(tls)))
			require.NoError(t, err)
			defer conn.Close()
			for range calls {
				tasks.Add(2)
				go call(conn, ententev1.SVIDService_IssueX509SVID_FullMethodName, large)
				go call(conn, ententev1.BundleService_WatchBundles_FullMethodName, &ententev1.WatchBundlesRequest{})
			}
		}
	}
	var most int64
	for range callers * connections * calls * 2 {
		<-begun
		most = max(most, residentMemory(t, p.cmd)-before)
	}
	t.Logf("%d calls ended as %v, and cost at most %d MiB", callers*connections*calls*2, ended, most>>20)
	require.Less(t, most, int64(allowed))
	require.Zero(t, ended["admitted"])
	require.NotZero(t, ended["PermissionDenied"])
	issue(t, p, "spiffe://eu.example.org/web")
}
