package auditapi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/audit/auditapi"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func newLog(t *testing.T, member string) *audit.Log {
	log, err := audit.Open(audit.Config{
		Path: filepath.Join(t.TempDir(), "audit.log"), Member: member, Logger: hclog.NewNullLogger(),
		Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, log.Close()) })
	return log
}

// serve returns a connection to a service.
func serve(t *testing.T, c auditapi.Config) grpc.ClientConnInterface {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	ententev1.RegisterAuditServiceServer(server, auditapi.New(c))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:member", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// tail returns the events of a request as lines.
func tail(t *testing.T, conn grpc.ClientConnInterface, r *ententev1.TailAuditRequest) (lines []string, err error) {
	stream, err := ententev1.NewAuditServiceClient(conn).TailAudit(t.Context(), r)
	require.NoError(t, err)
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, strings.Join([]string{e.GetMember(), e.GetCaller(), e.GetAction(), e.GetObject(),
			e.GetResult()}, " "))
	}
}

// TestAllMembers: the events of all members come in one order, selected by each, with what could not be had.
func TestAllMembers(t *testing.T) {
	one, two := newLog(t, "eu-1"), newLog(t, "eu-2")
	peer := serve(t, auditapi.Config{Log: two, Self: "eu-2"})
	conn := serve(t, auditapi.Config{
		Log: one, Self: "eu-1", Members: func() []string { return []string{"eu-1", "eu-2", "eu-3"} },
		Conn: func(id string) (grpc.ClientConnInterface, error) {
			if id == "eu-2" {
				return peer, nil
			}
			return nil, errors.New("connection refused")
		},
	})
	for _, r := range []struct {
		log    *audit.Log
		caller string
		action string
	}{
		{one, "ci", "sign"}, {two, "ci", "sign"}, {one, "boss", "grant"}, {two, "ci", "renew"}, {one, "ci", "sign"},
	} {
		require.NoError(t, r.log.Record(audit.Event{Caller: r.caller, Action: r.action, Object: "api", Result: "ok"}))
	}
	missing := "eu-1 member eu-1 tail audit eu-3 unreachable"
	for name, c := range map[string]struct {
		request *ententev1.TailAuditRequest
		want    []string
	}{
		"one member": {&ententev1.TailAuditRequest{Lines: 10}, []string{
			"eu-1 ci sign api ok", "eu-1 boss grant api ok", "eu-1 ci sign api ok",
		}},
		"all members": {&ententev1.TailAuditRequest{Lines: 10, AllMembers: true}, []string{
			"eu-1 ci sign api ok", "eu-2 ci sign api ok", "eu-1 boss grant api ok", "eu-2 ci renew api ok",
			"eu-1 ci sign api ok", missing,
		}},
		"the latest of all": {&ententev1.TailAuditRequest{Lines: 2, AllMembers: true}, []string{
			"eu-2 ci renew api ok", "eu-1 ci sign api ok", missing,
		}},
		"by caller and action": {
			&ententev1.TailAuditRequest{Lines: 2, AllMembers: true, Caller: "ci", Action: "sig"},
			[]string{"eu-2 ci sign api ok", "eu-1 ci sign api ok", missing},
		},
		"by object": {&ententev1.TailAuditRequest{Lines: 9, Object: "nothing"}, nil},
		"by time": {
			&ententev1.TailAuditRequest{Lines: 9, EndTime: timestamppb.New(time.Now().Add(-time.Hour))}, nil,
		},
		"from a time on": {
			&ententev1.TailAuditRequest{Lines: 1, StartTime: timestamppb.New(time.Now().Add(-time.Hour))},
			[]string{"eu-1 ci sign api ok"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := tail(t, conn, c.request)
			require.NoError(t, err)
			require.Equal(t, c.want, lines)
		})
	}
	_, err := tail(t, peer, &ententev1.TailAuditRequest{AllMembers: true})
	require.ErrorContains(t, err, "all_members: a member sends to another one its own log alone")
	_, err = tail(t, conn, &ententev1.TailAuditRequest{Caller: strings.Repeat("x", 2000)})
	require.ErrorContains(t, err, "a text to search for has 2000 bytes: at most 1024")
	_, err = tail(t, conn, &ententev1.TailAuditRequest{StartTime: &timestamppb.Timestamp{Nanos: -1}})
	require.ErrorContains(t, err, "start_time or end_time is no time")

	t.Run("follow", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := ententev1.NewAuditServiceClient(conn).TailAudit(ctx, &ententev1.TailAuditRequest{
			Lines: 10, Follow: true, AllMembers: true, Action: "follow",
		})
		require.NoError(t, err)
		e, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "unreachable", e.GetResult())
		require.Equal(t, "connection refused", e.GetDetail())
		require.NoError(t, one.Record(audit.Event{Caller: "ci", Action: "other", Result: "ok"}))
		require.NoError(t, one.Record(audit.Event{Caller: "ci", Action: "follow", Result: "ok"}))
		e, err = stream.Recv()
		require.NoError(t, err)
		require.Equal(t, "eu-1", e.GetMember())
		require.Equal(t, "follow", e.GetAction())
	})
}
