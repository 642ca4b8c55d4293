package authority

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

const (
	// patience is how long a request waits in a domain that was just created for its first authority.
	patience = 5 * time.Second
	// perMember is how long another member may take to sign before the next one is asked.
	perMember = 3 * time.Second
)

// allowed refuses the names that a caller cannot have. member is the fellow member that asks for itself; empty for
// everybody else, who gets nothing below /entente/.
func (m *Manager) allowed(id spiffeid.ID, member string) error {
	if !svid.Reserved(id) {
		if member != "" {
			return status.Errorf(codes.PermissionDenied, "%s is not below /%s/, which is all that members ask for themselves", id, svid.ReservedSegment)
		}
		return nil
	}
	if member == "" {
		return status.Errorf(codes.PermissionDenied, "%s is below /%s/, which only the server itself issues; choose another path", id, svid.ReservedSegment)
	}
	own, err := svid.MemberID(m.config.Home, member)
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	endpoint, err := svid.EndpointID(id.TrustDomain())
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	if id != own && id != endpoint {
		return status.Errorf(codes.PermissionDenied, "member %s cannot have %s; only %s and %s", member, id, own, endpoint)
	}
	return nil
}

// canSign says why this member must not sign now, nil if it may.
func (m *Manager) canSign() error {
	heard := m.config.Contact.LastHeard()
	if silent := m.config.Now().Sub(heard); heard.IsZero() {
		return errors.New("this member has not heard from the leader since it started")
	} else if silent > m.config.SigningGrace {
		return fmt.Errorf("this member last heard from the leader %v ago, and signs for %v without", silent.Round(time.Second), m.config.SigningGrace)
	}
	if !m.config.Contact.ClockSane() {
		return errors.New("this member's clock is not known to be that of the others")
	}
	return nil
}

// issueX509 gets an X509-SVID signed here, or else by a member that can. member is set when a member asks for itself.
func (m *Manager) issueX509(ctx context.Context, request *ententev1.IssueX509SVIDRequest, caller, member string) (*ententev1.IssueX509SVIDResponse, error) {
	r, err := svid.ParseX509Request(request)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := m.allowed(r.ID, member); err != nil {
		return nil, err
	}
	// The key has to be the one that was checked here, so the request goes on as it came.
	forward := &ententev1.SignX509SVIDRequest{Request: request, Caller: caller, ForMember: member != ""}
	return pass(ctx, m, r.ID.TrustDomain(), plan.X509,
		func(d *domainState) (*ententev1.IssueX509SVIDResponse, error) {
			ttl, err := svid.Lifetime(r.TTL, d.settings.X509SVIDTTL)
			if err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			return m.signX509(d.signers[plan.X509], d, r, ttl, caller)
		},
		func(ctx context.Context, c ententev1.SigningServiceClient) (*ententev1.IssueX509SVIDResponse, error) {
			return c.SignX509SVID(ctx, forward)
		})
}

// issueJWT gets a JWT-SVID signed here, or else by a member that can.
func (m *Manager) issueJWT(ctx context.Context, request *ententev1.IssueJWTSVIDRequest, caller string) (*ententev1.IssueJWTSVIDResponse, error) {
	r, err := svid.ParseJWTRequest(request)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := m.allowed(r.ID, ""); err != nil {
		return nil, err
	}
	forward := &ententev1.SignJWTSVIDRequest{Request: request, Caller: caller}
	return pass(ctx, m, r.ID.TrustDomain(), plan.JWT,
		func(d *domainState) (*ententev1.IssueJWTSVIDResponse, error) {
			ttl, err := svid.Lifetime(r.TTL, d.settings.JWTSVIDTTL)
			if err != nil {
				return nil, status.Error(codes.InvalidArgument, err.Error())
			}
			return m.signJWT(d.signers[plan.JWT], d.issuer, r, ttl, caller)
		},
		func(ctx context.Context, c ententev1.SigningServiceClient) (*ententev1.IssueJWTSVIDResponse, error) {
			return c.SignJWTSVID(ctx, forward)
		})
}

// pass signs here if this member can, and passes the request on to one that can if not, or if its key cannot be reached: to one after the other until
// one of them signs or refuses for a reason that holds everywhere. In a domain that nobody can sign for yet it waits a
// moment, since its creation was acknowledged before its first authority was there.
func pass[R proto.Message](ctx context.Context, m *Manager, td spiffeid.TrustDomain, kind plan.Kind,
	here func(*domainState) (R, error), there func(context.Context, ententev1.SigningServiceClient) (R, error),
) (R, error) {
	var none R
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		changed := m.changed.next()
		d := m.signing.Load().domains[td]
		var why error
		switch {
		case d == nil:
			if hosted, err := table.Hosts(m.config.Store.View(), td.Name()); err != nil {
				return none, raftstore.StatusError(err)
			} else if !hosted {
				return none, notHosted(td.Name())
			}
		case d.ready(kind, m.config.Now()):
			if why = m.canSign(); why == nil {
				result, err := here(d)
				if !helpsElsewhere(err) || len(d.elsewhere[kind]) == 0 {
					return result, err
				}
				why = err
			}
		}
		if d != nil && len(d.elsewhere[kind]) > 0 {
			return elsewhere(ctx, m, d.elsewhere[kind], td, kind, why, there)
		}
		if why != nil {
			return none, status.Errorf(codes.Unavailable, "%v, and no other member has an active %s authority of %s", why, kind, td)
		}
		if err := waitFor(waiting, changed, lookAgain); err != nil {
			return none, status.Errorf(codes.Unavailable, "no member has an active %s authority of %s; look at authority list %s", kind, td, td)
		}
	}
}

// helpsElsewhere says whether another member may do what this one could not: its key or its audit log failed it, and the
// request is not to blame.
func helpsElsewhere(err error) bool {
	if err == nil || errors.Is(err, svid.ErrLint) {
		return false
	}
	_, decided := status.FromError(err)
	return !decided
}

// ready says whether this member has an active authority of the kind.
func (d *domainState) ready(kind plan.Kind, now time.Time) bool {
	s := d.signers[kind]
	return s != nil && now.Add(time.Second).Before(s.notAfter) && d.document != nil
}

// elsewhere asks members in random order, so that a member that is down costs its neighbours no more than their share.
func elsewhere[R proto.Message](ctx context.Context, m *Manager, members []string, td spiffeid.TrustDomain, kind plan.Kind, why error,
	there func(context.Context, ententev1.SigningServiceClient) (R, error),
) (R, error) {
	var none R
	errs := []error{why}
	for _, i := range rand.Perm(len(members)) {
		result, err := ask(ctx, m, members[i], there)
		if err == nil {
			m.metrics.signatures.WithLabelValues(kind.String(), "passed_on").Inc()
			return result, nil
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied:
			return none, err
		}
		if ctx.Err() != nil {
			return none, status.FromContextError(ctx.Err()).Err()
		}
		m.log.Warn("a member could not sign for this one", "member", members[i], "trust_domain", td, "kind", kind, "error", err)
		errs = append(errs, fmt.Errorf("member %s: %w", members[i], err))
	}
	return none, status.Errorf(codes.Unavailable, "no member could sign for %s: %s", td, oneLine(errors.Join(errs...)))
}

// ask asks one member.
func ask[R proto.Message](ctx context.Context, m *Manager, member string, there func(context.Context, ententev1.SigningServiceClient) (R, error)) (R, error) {
	conn, err := m.config.Conn(member)
	if err != nil {
		var none R
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, perMember)
	defer cancel()
	return there(ctx, ententev1.NewSigningServiceClient(conn))
}

func notHosted(td string) error {
	return status.Errorf(codes.NotFound, "this cluster is not the authority for %s; see domain list", td)
}
