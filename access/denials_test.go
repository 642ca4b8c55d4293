package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// refusedOf returns how many lines of refused calls a caller has, and how many more calls they sum up.
func refusedOf(lines []string, caller string) (of, omitted int) {
	for _, line := range lines {
		rest, ok := strings.CutPrefix(line, caller+"|")
		if !ok {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(rest, "refused calls||denied|%d more", &n); err == nil {
			omitted += n
			continue
		}
		of++
		if _, after, ok := strings.Cut(rest, "; before it "); ok {
			if _, err := fmt.Sscanf(after, "%d more", &n); err == nil {
				omitted += n
			}
		}
	}
	return of, omitted
}

func TestFloodHidesNoOtherDenials(t *testing.T) {
	h := build(t)
	refuse := func(c access.Caller, times int, call func(*domainsClient) error) {
		client := &domainsClient{v1.NewDomainServiceClient(h.dial(t, c)), v1.NewClusterServiceClient(h.dial(t, c))}
		for range times {
			require.Equal(t, codes.PermissionDenied, status.Code(call(client)))
		}
	}
	create := func(c *domainsClient) error {
		_, err := c.CreateDomain(t.Context(), create("evil.test"))
		return err
	}
	list := func(c *domainsClient) error {
		_, err := c.ListDomains(t.Context(), &v1.ListDomainsRequest{})
		return err
	}
	restore := func(c *domainsClient) error {
		stream, err := c.RestoreSnapshot(t.Context())
		require.NoError(t, err)
		_, err = stream.CloseAndRecv()
		return err
	}
	web := access.SVIDCaller(spiffeid.RequireFromString("spiffe://eu.test/web"))
	foreign := access.SVIDCaller(spiffeid.RequireFromString("spiffe://us.test/ci"))

	refuse(ci, 300, create)
	refuse(ci, 50, restore) // the same caller, by streams
	refuse(web, 1, create)  // the same trust domain
	refuse(foreign, 1, create)
	refuse(foreign, 300, list) // refused reads have no audit line, and take none of the others
	refuse(foreign, 1, restore)
	var lines []string
	require.Eventually(t, func() bool { // lines of calls that are refused unread are written in order, after the call
		lines = h.lines(t)
		of, _ := refusedOf(lines, foreign.String())
		return of == 2
	}, 10*time.Second, time.Millisecond)
	of, _ := refusedOf(lines, ci.String())
	require.GreaterOrEqual(t, of, 20)
	require.Less(t, of, 60)
	of, _ = refusedOf(lines, web.String())
	require.Equal(t, 1, of)
}

type domainsClient struct {
	v1.DomainServiceClient
	v1.ClusterServiceClient
}

func TestRefusedCallsWithoutALineAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t)
		client := v1.NewDomainServiceClient(h.dial(t, ci))
		for range 120 {
			_, err := client.CreateDomain(t.Context(), create("evil.test"))
			require.Equal(t, codes.PermissionDenied, status.Code(err))
		}
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		lines := h.lines(t)
		require.Equal(t, ci.String()+"|refused calls||denied|100 more without a line of their own",
			lines[len(lines)-1])
		of, omitted := refusedOf(lines, ci.String())
		require.Equal(t, []int{20, 100}, []int{of, omitted})
		require.Len(t, slices.Compact(slices.Clone(lines)), 2)
	})
}
