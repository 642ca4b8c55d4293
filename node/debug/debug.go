// Package debug describes the process of a member for a report of a defect.
//
// [Service] implements DebugService: it collects files from its [Sources], and takes profiles. It is meant for the
// admin socket alone. Nothing that it returns contains a secret: stacks are without arguments, profiles without
// content of memory, and the environment and the command line are left out. What a source returns must keep to that.
//
// [Tail] keeps the end of the log in memory, because the member does not know where its supervisor writes it.
package debug

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// partBytes is the size of the parts of a file.
	partBytes = 64 << 10
	// usualDuration and maxDuration are how long a profile records.
	usualDuration = 10 * time.Second
	maxDuration   = time.Minute
)

// Source returns the content of a file.
type Source func() ([]byte, error)

// Service implements DebugService.
type Service struct {
	ententev1.UnimplementedDebugServiceServer
	sources map[string]Source
	busy    sync.Mutex
}

// New returns a service that collects the sources by the names of their files, beside the profiles of the process.
func New(sources map[string]Source) *Service {
	all := map[string]Source{
		"build.txt":      build,
		"goroutines.txt": func() ([]byte, error) { return lookup("goroutine", 1) },
		"heap.pprof":     func() ([]byte, error) { return lookup("heap", 0) },
	}
	maps.Copy(all, sources)
	return &Service{sources: all}
}

// Collect streams the files. One that cannot be had is there with the reason, since the report is of a member in
// trouble.
func (s *Service) Collect(
	_ *ententev1.CollectRequest, stream ententev1.DebugService_CollectServer,
) error {
	if !s.busy.TryLock() {
		return errBusy
	}
	defer s.busy.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.sources)) {
		content, err := s.sources[name]()
		if err != nil {
			name, content = name+".error", []byte(err.Error()+"\n")
		}
		for first := true; first || len(content) > 0; first = false {
			part := content[:min(len(content), partBytes)]
			content = content[len(part):]
			if err := stream.Send(&ententev1.CollectResponse{Name: name, Data: part}); err != nil {
				return err
			}
		}
	}
	return nil
}

// errBusy refuses a call: a profile of the processor is one of the whole process.
var errBusy = status.Error(codes.ResourceExhausted, "this member serves another debug call: wait for it to end")

// Profile streams a profile.
func (s *Service) Profile(
	request *ententev1.ProfileRequest, stream ententev1.DebugService_ProfileServer,
) error {
	duration := usualDuration
	if request.GetDuration() != nil {
		duration = request.GetDuration().AsDuration()
	}
	if duration <= 0 || duration > maxDuration {
		return status.Errorf(codes.InvalidArgument, "duration %v is out of bounds: it must be above 0 and at most %v",
			duration, maxDuration)
	}
	if !s.busy.TryLock() {
		return errBusy
	}
	defer s.busy.Unlock()
	var out bytes.Buffer
	if err := profile(stream.Context(), request.GetProfile(), duration, &out); err != nil {
		return err
	}
	for out.Len() > 0 {
		if err := stream.Send(&ententev1.ProfileResponse{Data: out.Next(partBytes)}); err != nil {
			return err
		}
	}
	return nil
}

// profile writes a profile by name.
func profile(ctx context.Context, name string, duration time.Duration, out io.Writer) error {
	switch name {
	case "cpu":
		return record(ctx, duration, func() error { return pprof.StartCPUProfile(out) }, pprof.StopCPUProfile)
	case "trace":
		return record(ctx, duration, func() error { return trace.Start(out) }, trace.Stop)
	}
	found := pprof.Lookup(name)
	if found == nil {
		names := []string{"cpu", "trace"}
		for _, p := range pprof.Profiles() {
			names = append(names, p.Name())
		}
		slices.Sort(names)
		return status.Errorf(codes.InvalidArgument, "%q is no profile: name one of %s", name[:min(len(name), 40)],
			strings.Join(names, ", "))
	}
	return found.WriteTo(out, 0)
}

// record lets a profile record for a while.
func record(ctx context.Context, duration time.Duration, start func() error, stop func()) error {
	if err := start(); err != nil {
		return status.Errorf(codes.FailedPrecondition, "the profile cannot start: %v", err)
	}
	defer stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(duration):
		return nil
	}
}

// lookup returns a profile of the present moment. Debug 1 is text without the arguments of functions.
func lookup(name string, debug int) ([]byte, error) {
	var out bytes.Buffer
	err := pprof.Lookup(name).WriteTo(&out, debug)
	return out.Bytes(), err
}

func build() ([]byte, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil, errors.New("the binary has no information on its build")
	}
	return []byte(info.String()), nil
}

// Metrics returns a source of the metrics, as /metrics has them.
func Metrics(of prometheus.Gatherer) Source {
	return func() ([]byte, error) {
		families, err := of.Gather()
		var out bytes.Buffer
		for _, family := range families {
			if _, err := expfmt.MetricFamilyToText(&out, family); err != nil {
				return nil, fmt.Errorf("write metric %s: %w", family.GetName(), err)
			}
		}
		if out.Len() > 0 {
			err = nil // what could be gathered is worth more
		}
		return out.Bytes(), err
	}
}
