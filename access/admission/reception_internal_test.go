package admission

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReception(t *testing.T) {
	const limit = 10 * time.Second
	for name, c := range map[string]struct {
		during  func(ctx context.Context, end func())
		err     error // a second after the limit
		expired bool
	}{
		"no message":         {during: func(context.Context, func()) {}, err: context.DeadlineExceeded, expired: true},
		"a message":          {during: func(ctx context.Context, _ func()) { Received(ctx) }},
		"the call has ended": {during: func(_ context.Context, end func()) { end() }, err: context.Canceled},
		"received within":    {during: func(ctx context.Context, _ func()) { Received(context.WithoutCancel(ctx)) }},
		"a message of another call": {
			during: func(context.Context, func()) { Received(context.Background()) },
			err:    context.DeadlineExceeded, expired: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, end := context.WithCancel(t.Context())
				defer end()
				expired := false
				ctx := Receive(parent, nil, limit, func() { expired = true })
				time.Sleep(limit - time.Second)
				require.NoError(t, ctx.Err())
				c.during(ctx, end)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.Equal(t, c.err, ctx.Err())
				require.Equal(t, c.expired, expired)
			})
		})
	}
}
