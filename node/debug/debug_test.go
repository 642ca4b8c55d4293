package debug

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestTail: the end of the log is kept, from the beginning of a line.
func TestTail(t *testing.T) {
	var passed bytes.Buffer
	tail := NewTail(&passed)
	lines := func() string {
		kept, err := tail.Lines()
		require.NoError(t, err)
		return string(kept)
	}
	require.Empty(t, lines())
	fmt.Fprintln(tail, "first")
	require.Equal(t, "first\n", lines())
	var all strings.Builder
	all.WriteString("first\n")
	for i := range 30_000 {
		line := fmt.Sprintf("line %d of a log that is longer than what is kept\n", i)
		all.WriteString(line)
		_, err := tail.Write([]byte(line))
		require.NoError(t, err)
	}
	require.Equal(t, all.String(), passed.String(), "everything is passed on")
	require.True(t, strings.HasSuffix(all.String(), "\n"+lines()))
	require.Greater(t, len(lines()), tailBytes-100)
	long := strings.Repeat("x", 2*tailBytes) + "\nlast\n"
	fmt.Fprint(tail, long)
	require.Equal(t, "last\n", lines())
}

// stream receives what Collect and Profile send.
type stream[T any] struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*T
}

func (s *stream[T]) Context() context.Context { return s.ctx }

func (s *stream[T]) Send(m *T) error {
	s.sent = append(s.sent, m)
	return nil
}

// TestCollect: a large file comes in parts, an empty one is there, and one that cannot be had is there with the reason.
func TestCollect(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789"), 20_000)
	s := New(map[string]Source{
		"a-large":  func() ([]byte, error) { return large, nil },
		"b-empty":  func() ([]byte, error) { return nil, nil },
		"c-broken": func() ([]byte, error) { return []byte("part"), fmt.Errorf("the disk hangs") },
	})
	out := &stream[ententev1.CollectResponse]{ctx: t.Context()}
	require.NoError(t, s.Collect(&ententev1.CollectRequest{}, out))
	files := map[string][]byte{}
	for _, part := range out.sent {
		require.LessOrEqual(t, len(part.GetData()), partBytes)
		files[part.GetName()] = append(files[part.GetName()], part.GetData()...)
	}
	require.Equal(t, large, files["a-large"])
	require.Contains(t, files, "b-empty")
	require.Equal(t, "the disk hangs\n", string(files["c-broken.error"]))
	require.Len(t, files, 6)
}

// TestProfile: a profile records for as long as it may, one at a time, and ends with its caller.
func TestProfile(t *testing.T) {
	s := New(nil)
	profile := func(ctx context.Context, name string, d time.Duration) (int, error) {
		out := &stream[ententev1.ProfileResponse]{ctx: ctx}
		err := s.Profile(&ententev1.ProfileRequest{Profile: name, Duration: durationpb.New(d)}, out)
		size := 0
		for _, part := range out.sent {
			size += len(part.GetData())
		}
		return size, err
	}
	for _, name := range []string{"heap", "goroutine", "cpu", "trace"} {
		size, err := profile(t.Context(), name, time.Millisecond)
		require.NoError(t, err, name)
		require.NotZero(t, size, name)
	}
	_, err := profile(t.Context(), "cpu", 2*time.Minute)
	require.ErrorContains(t, err, "duration 2m0s is out of bounds: it must be above 0 and at most 1m0s")
	_, err = profile(t.Context(), "cmdline", time.Second)
	require.ErrorContains(t, err, `"cmdline" is no profile: name one of allocs, block, cpu, goroutine, heap, mutex, `+
		"threadcreate, trace")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = profile(ctx, "cpu", time.Minute)
	require.ErrorIs(t, err, context.Canceled)
	s.busy.Lock()
	_, err = profile(t.Context(), "heap", time.Second)
	require.ErrorContains(t, err, "this member serves another debug call: wait for it to end")
	s.busy.Unlock()
}
