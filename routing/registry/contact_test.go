package registry

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCheckContact(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		last time.Time
		want string
	}{
		{now, ""},
		{now.Add(-5 * time.Second), ""},
		{now.Add(-5001 * time.Millisecond), "this member has had no contact with the leader for 5.001s and could not " +
			"pass the renewal on; use another member"},
		{time.Time{}, "this member has had no contact with the leader since it started and could not pass the " +
			"renewal on; use another member"},
	} {
		err := checkContact(c.last, now, 10*time.Second)
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.Equal(t, c.want, status.Convert(err).Message())
	}
}
