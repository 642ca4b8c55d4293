package node

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

func TestPartsStopInReverseEachWaitedFor(t *testing.T) {
	life := newLifecycle(hclog.NewNullLogger())
	var order []string
	for _, name := range []string{"store", "rooms", "callers"} {
		life.start(name, func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // no lock: each is waited for before the next is told
			return ctx.Err()
		})
	}
	life.onStop("file", func() error { order = append(order, "file"); return errors.New("disk full") })
	require.EqualError(t, life.stop(), "stop file: disk full")
	require.Equal(t, []string{"file", "callers", "rooms", "store"}, order)
	require.NoError(t, life.stop(), "a second stop has nothing left to do")
}

func TestAPartThatEndsByItselfEndsTheMember(t *testing.T) {
	for name, c := range map[string]struct {
		returns error
		want    string
	}{
		"with an error": {errors.New("listener broke"), "endpoint: listener broke"},
		"without one":   {nil, "endpoint: it ended by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			life := newLifecycle(hclog.NewNullLogger())
			life.start("endpoint", func(context.Context) error { return c.returns })
			require.EqualError(t, <-life.failed, c.want)
			require.NoError(t, life.stop(), "it is reported once")
		})
	}
}

func TestTheFirstFailureCounts(t *testing.T) {
	life := newLifecycle(hclog.NewNullLogger())
	life.fail(errors.New("first"))
	life.fail(errors.New("second"))
	require.EqualError(t, <-life.failed, "first")
	require.Empty(t, life.failed)
}

func TestADataFolderIsHeldByOneProcess(t *testing.T) {
	dir := t.TempDir() + "/data"
	first, err := openDataDir(dir)
	require.NoError(t, err)
	_, err = openDataDir(dir)
	require.EqualError(t, err, "data folder "+dir+" is in use by another entente server; stop that one, or give this one a folder of its own")
	require.NoError(t, first.close())
	second, err := openDataDir(dir)
	require.NoError(t, err)
	require.NoError(t, second.close())
}
