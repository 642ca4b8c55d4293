package membership

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestMalformedTimes: the refusals have the numbers that were sent, in a text that is always the same.
func TestMalformedTimes(t *testing.T) {
	_, err := clusterService{}.CreateJoinToken(t.Context(), &ententev1.CreateJoinTokenRequest{
		Ttl: &durationpb.Duration{Seconds: 1, Nanos: -1},
	})
	requireRefusal(t, err, codes.InvalidArgument, "ttl is not a duration: it has 1 seconds and -1 nanoseconds")

	members := memberService{caller: func(context.Context) (string, bool) { return "eu-1", true }}
	for want, clock := range map[string]*timestamppb.Timestamp{
		"the heartbeat's clock is not a time: it has 5 seconds and 1000000000 nanoseconds": {Seconds: 5, Nanos: 1e9},
		"the heartbeat has no clock": nil,
	} {
		_, err := members.Heartbeat(t.Context(), &ententev1.HeartbeatRequest{Id: "eu-1", Clock: clock})
		requireRefusal(t, err, codes.InvalidArgument, want)
	}
}
