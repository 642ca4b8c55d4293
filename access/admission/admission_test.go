package admission_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/admission"
)

type caller string

func (c caller) String() string { return string(c) }

func TestCallsUnderWayAreBounded(t *testing.T) {
	control := admission.New(map[admission.Load]admission.Capacity{
		admission.Reads:  {Running: 2, Waiting: 1, Share: 2},
		admission.Writes: {Running: 1, Share: 1},
	})
	enter := func(c caller) *admission.Ticket {
		t.Helper()
		ticket, err := control.Enter(admission.Reads, c)
		require.NoError(t, err)
		return ticket
	}
	first := enter("a")
	enter("a")
	_, err := control.Enter(admission.Reads, caller("a"))
	require.EqualError(t, err, "rpc error: code = ResourceExhausted desc = a has 2 calls of the kind read under way "+
		"at this member, as many as one caller may have: try again after 1s, or use another member")
	enter("b")
	_, err = control.Enter(admission.Reads, caller("c"))
	require.EqualError(t, err, "rpc error: code = ResourceExhausted desc = this member has 3 calls of the kind read "+
		"under way, as many as it takes on: try again after 1s, or use another member")
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	advice, ok := status.Convert(err).Details()[0].(*errdetails.RetryInfo)
	require.True(t, ok)
	require.Positive(t, advice.GetRetryDelay().AsDuration())
	_, err = control.Enter(admission.Writes, caller("c"))
	require.NoError(t, err, "another kind")
	require.Equal(t, 4, testutil.CollectAndCount(control.Collector()), "two kinds, two limits")

	first.Leave()
	first.Leave() // counts once
	enter("c")
	_, err = control.Enter(admission.Reads, caller("c"))
	require.Error(t, err)
}

func TestAdmittedCallsWaitForThoseThatRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		control := admission.New(map[admission.Load]admission.Capacity{
			admission.Signing: {Running: 1, Waiting: 2, Share: 3},
		})
		enter := func() *admission.Ticket {
			ticket, err := control.Enter(admission.Signing, caller("a"))
			require.NoError(t, err)
			return ticket
		}
		done, err := enter().Run(t.Context())
		require.NoError(t, err)

		ran := make(chan func(), 1)
		go func() {
			done, err := enter().Run(t.Context())
			if err == nil {
				ran <- done
			}
		}()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := enter().Run(ctx)
			ended <- err
		}()
		synctest.Wait()
		require.Empty(t, ran)
		cancel()
		require.Equal(t, codes.Canceled, status.Code(<-ended))
		done()
		(<-ran)()
	})
}

func TestCallsThatAreNotCounted(t *testing.T) {
	var none *admission.Ticket
	done, err := none.Run(t.Context())
	require.NoError(t, err)
	done()
	none.Leave()
}

// A queue that is at most half as long as what runs makes a call wait for half the time of a call at most.
func TestCapacities(t *testing.T) {
	for _, cores := range []int{1, 2, 64} {
		for load, c := range admission.Capacities(cores) {
			require.LessOrEqual(t, 2*c.Waiting, c.Running, load)
			require.Less(t, c.Share, c.Running+max(c.Waiting, 1), "one caller leaves room for others: %s", load)
		}
	}
}
