package routing

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// ExportService creates an export, or replaces the one of the same name to the same domain.
func (s *Server) ExportService(ctx context.Context, r *ententev1.ExportServiceRequest) (*ententev1.ServiceExport, error) {
	wanted, err := ParseExport(r.GetExport())
	if err != nil {
		return nil, invalid(err)
	}
	key := exportKey(wanted.To, wanted.Name)
	others := 0
	for row, err := range Exports.All(s.m.store.View(), "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if row.Key != key {
			others++
		}
	}
	if others >= maxExports {
		return nil, status.Errorf(codes.ResourceExhausted, "there are %d exports, which is the most; remove some with 'entente service unexport'", others)
	}
	_, err = s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		agreement, err := s.m.agreed(tx, wanted.To)
		if err != nil {
			return err
		}
		if wanted.TrustDomain != "" {
			hosted, err := s.m.agreements.Hosted(tx, wanted.TrustDomain)
			if err != nil {
				return err
			}
			if !hosted {
				return status.Errorf(codes.FailedPrecondition, "this cluster does not host %s, and exports only instances of its own domains", wanted.TrustDomain)
			}
		}
		wanted.created, wanted.agreed = s.m.now(), agreement.Since
		row, found, err := Exports.Get(tx, key)
		switch {
		case err != nil:
			return err
		case found && row.Value.GetAgreed().AsTime().Equal(agreement.Since):
			wanted.created = row.Value.GetCreateTime().AsTime()
		}
		return Exports.Put(tx, key, wanted.row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.export(ctx, s.m.store.View(), key)
}

// export returns one as it is stored.
func (s *Server) export(ctx context.Context, view raftstore.Reader, key string) (*ententev1.ServiceExport, error) {
	row, found, err := Exports.Get(view, key)
	if err == nil && !found {
		err = status.Errorf(codes.Aborted, "the export was removed at the same moment")
	}
	var e Export
	if err == nil {
		e, err = exportFromRow(row)
	}
	var out *ententev1.ServiceExport
	if err == nil {
		out, err = s.m.shownExport(view, e, s.m.peerAnswers(ctx))
	}
	return out, raftstore.StatusError(err)
}

// shownExport is an export as operators see it.
func (m *Manager) shownExport(r raftstore.Reader, e Export, answers peerAnswers) (*ententev1.ServiceExport, error) {
	out := &ententev1.ServiceExport{
		Service: e.Service, To: e.To, Name: e.Name, TrustDomain: e.TrustDomain, PathPrefix: e.PathPrefix,
		CreateTime: timestamppb.New(e.created), Revision: uint64(e.revision), State: ententev1.ExportState_EXPORT_STATE_OFFERED,
	}
	for _, place := range e.Localities {
		out.Localities = append(out.Localities, place.String())
	}
	present, err := m.catalog.service(r, e.Service)
	if err != nil {
		return nil, err
	}
	hosted := make([]bool, len(present.domains))
	for n, td := range present.domains {
		if hosted[n], err = m.agreements.Hosted(r, td.Name()); err != nil {
			return nil, err
		}
	}
	for n, i := range present.instances {
		if hosted[present.domainOf[n]] && e.covers(i) {
			out.Instances++
		}
	}
	agreement, found, err := m.agreements.With(r, e.To)
	switch {
	case err != nil:
		return nil, err
	case !found || !e.counts(agreement):
		out.State, out.Detail = ententev1.ExportState_EXPORT_STATE_ENDED, "the relationship that it was made under has ended"
	case agreement.heldBack(e.To) != "":
		out.State, out.Detail = ententev1.ExportState_EXPORT_STATE_HELD_BACK, agreement.heldBack(e.To)
	case out.Instances == 0:
		out.Detail = "no instance of a hosted domain is covered by it"
	}
	if out.GetState() == ententev1.ExportState_EXPORT_STATE_OFFERED {
		err = m.standing(r, e, agreement, answers, out)
	}
	return out, err
}

// ListServiceExports returns all exports, by domain and name.
func (s *Server) ListServiceExports(ctx context.Context, r *ententev1.ListServiceExportsRequest) (*ententev1.ListServiceExportsResponse, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := exports(view, "")
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListServiceExportsResponse{Revision: uint64(view.Revision())}
	answers := s.m.peerAnswers(ctx)
	for _, e := range list {
		shown, err := s.m.shownExport(view, e, answers)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		answer.Exports = append(answer.Exports, shown)
	}
	return answer, nil
}

// UnexportService removes an export.
func (s *Server) UnexportService(ctx context.Context, r *ententev1.UnexportServiceRequest) (*ententev1.UnexportServiceResponse, error) {
	if err := plan.CheckServiceName(r.GetName()); err != nil {
		return nil, invalid(err)
	}
	to, err := foreignDomain(r.GetTo())
	if err != nil {
		return nil, invalid(err)
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		key := exportKey(to, r.GetName())
		if _, found, err := Exports.Get(tx, key); err != nil {
			return err
		} else if !found {
			return status.Errorf(codes.NotFound, "nothing is exported to %s as %s; 'entente service exports' lists what is", to, r.GetName())
		}
		return Exports.Delete(tx, key)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.UnexportServiceResponse{Revision: uint64(revision)}, nil
}
