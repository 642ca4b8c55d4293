package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/node/lifecycle"
	"github.com/ententehq/entente/node/operations"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
)

// answerStarting returns to every call on the admin socket and on the TLS port why this member does not serve yet,
// until stop is called. On the port it presents the SVID that it had before it stopped, and verifies no caller: it has
// no state yet to do that by, and the answer contains nothing else than how far the member is. A member that has kept
// no SVID, or that cannot decrypt it yet, refuses the handshakes instead.
func answerStarting(m *member) (stop func() error, err error) {
	socket, err := access.ListenSocket(m.dir.File(SocketName))
	if err != nil {
		return nil, err
	}
	answer := grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return raftstore.StatusError(starting(m))
	})
	answers := lifecycle.New(m.log)
	answers.Start("answers on the socket while starting", serveGRPC(grpc.NewServer(append(
		serverOptions(access.SocketCredentials()), grpc.ReadBufferSize(4<<10), answer)...), socket))
	answers.Start("answers on the port while starting", serveGRPC(grpc.NewServer(append(
		joinOptions(port.Credentials(), reception), answer)...), m.port.Listener(port.Starting)))
	m.life.OnStop("answers while starting", answers.Stop)
	return answers.Stop, nil
}

// openKeys starts what opens the signing keys, once: before the state is loaded if there is one, so that the member can
// present the SVID that it had.
func (m *member) openKeys() {
	if m.vault != nil {
		m.life.Start("vault", m.vault.Run)
	}
	if m.transit != nil {
		m.life.Start("keys in Vault", m.transit.Run)
	}
	if m.disk != nil {
		m.life.Start("keys on disk", m.disk.run)
	}
}

// restoreSVIDs lets the member present the SVIDs that it had before its start. Without them it presents none until an
// authority has signed new ones.
func (m *member) restoreSVIDs() {
	if err := m.authority.RestoreSVIDs(); err != nil && !errors.Is(err, keys.ErrLocked) {
		m.log.Warn("the SVIDs that this member had before it stopped cannot be used; callers are refused until it has "+
			"new ones", "error", err)
	}
}

// starting returns why a member that has not started yet does not serve.
func starting(m *member) error {
	if err := m.store.Serving().Err(); err != nil {
		return err
	}
	return &raftstore.StartingError{Revision: m.store.View().Revision()}
}

// startingChecks returns the conditions of readiness of a member that has not started yet.
func startingChecks(m *member) []operations.Check {
	return []operations.Check{{Name: "state", Test: func() error { return starting(m) }}}
}

// await waits for a condition of the store, or returns the reason why it never comes to hold.
func await(ctx context.Context, m *member, condition func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	held := make(chan error, 1)
	go func() { held <- condition(ctx) }()
	select {
	case err := <-held:
		return err
	case err := <-m.life.Failed():
		return err // the condition ends with ctx
	}
}

// refuseStarting refuses calls of members and joiners while this member is starting, except those by which the members
// find each other and agree on a leader's state.
func (m *member) refuseStarting(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if !strings.HasPrefix(info.FullMethod, "/entente.v1.StoreService/") &&
		!strings.HasPrefix(info.FullMethod, "/entente.v1.MemberService/") &&
		info.FullMethod != ententev1.JoinService_ExchangeAddresses_FullMethodName {
		if err := m.store.Serving().Err(); err != nil {
			return nil, raftstore.StatusError(err)
		}
	}
	return handler(ctx, request)
}

// state returns what marks an answer of this member, or "", and an error if it must not answer.
func (m *member) state() (mark string, err error) {
	if err := m.store.Serving().Err(); err != nil {
		return "", err
	}
	if at, unconfirmed := m.store.Serving().Unconfirmed(); unconfirmed {
		return apierror.State(uint64(at)), nil
	}
	return "", nil
}

// markOptions let every answer of a gRPC server have the mark of its state.
func (m *member) markOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(
			ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
		) (any, error) {
			mark, err := m.state()
			if err == nil && mark != "" {
				err = grpc.SetHeader(ctx, metadata.Pairs(apierror.StateHeader, mark))
			}
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(
			service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
		) error {
			mark, err := m.state()
			if err == nil && mark != "" {
				err = stream.SetHeader(metadata.Pairs(apierror.StateHeader, mark))
			}
			if err != nil {
				return raftstore.StatusError(err)
			}
			return handler(service, stream)
		}),
	}
}

// completeRecovery completes a recovery of the cluster that `entente cluster recover` has begun: the sequences of the
// hosted bundles continue above everything that was published, and the other members are struck out. Until then this
// member serves nothing.
func (m *member) completeRecovery(ctx context.Context) error {
	pending, err := m.members.PendingRecovery()
	if err != nil || pending == nil {
		return err
	}
	return audit.Do(m.audit, audit.Event{
		Caller: "holder of the data folder", Action: "recover cluster", Object: m.cfg.Cluster.Name, Durable: true,
		Detail: fmt.Sprintf("up to index %d, sequences from %d", pending.GetLastIndex(), pending.GetSequenceFloor()),
	}, func(*audit.Event) error {
		for {
			err := m.authority.RaiseSequences(ctx, pending.GetSequenceFloor())
			if err == nil {
				err = m.members.CompleteRecovery(ctx, pending)
			}
			if err == nil {
				m.log.Warn("the cluster was recovered from this member alone; it is complete once further members "+
					"have joined", "index", pending.GetLastIndex(), "sequence", pending.GetSequenceFloor())
				return nil
			}
			m.log.Warn("the recovery of the cluster is not complete yet; trying again", "error", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(recoveryRetry):
			}
		}
	})
}

// recoveryRetry is the pause between attempts to complete a recovery: the member has to lead first.
const recoveryRetry = time.Second
