// Package debug has the commands that describe the process of a member, for a report of a defect.
package debug

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// Command returns the noun with its verbs.
func Command(env *cli.Env) *cobra.Command {
	return cli.Group("debug", "What a report of a defect needs, from one member", bundleCommand(env),
		profileCommand(env))
}

// maxBundleBytes bounds what a member can make this command keep.
const maxBundleBytes = 64 << 20

// Bundle is the output of a bundle for programs.
type Bundle struct {
	File  string   `json:"file"`
	Files []string `json:"files"`
}

func bundleCommand(env *cli.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "bundle FILE",
		Short: "Write what a report of a defect needs into a .tar.gz",
		Long: `Write what a report of a defect needs into a .tar.gz: the version and its modules, the effective
configuration, what /ready answers, members, domains, authorities and relationships, the metrics, the end of the log, a
summary of Raft, stacks of goroutines, a heap profile, and the certificates that the member presents.

It contains no secret: no private key, no token, nothing from the environment, and no content of memory. It names
members, addresses, trust domains and peers; read it before you publish it.

The member must be reached through its admin socket. It answers without a leader.`,
		Example: `  entente debug bundle eu-1.tar.gz`,
		Args:    cli.Arguments("FILE"),
		RunE: env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			files, err := collect(ctx, member)
			if err != nil {
				return err
			}
			err = cli.WriteFile(args[0], cli.SecretMode, func(f *os.File) error { return pack(f, files, time.Now()) })
			if err != nil {
				return err
			}
			names := slices.Sorted(maps.Keys(files))
			return env.Print(Bundle{File: args[0], Files: names}, func(t *cli.Table) {
				t.Columns("FILE", "BYTES")
				for _, name := range names {
					t.Row(name, len(files[name]))
				}
			})
		}),
	}
}

// collect returns the files of a bundle: those of the member, and what its API returns of the state, as it has it.
func collect(ctx context.Context, member *cli.Member) (map[string][]byte, error) {
	stream, err := member.Debug().Collect(ctx, &ententev1.CollectRequest{})
	if err != nil {
		return nil, err
	}
	files, size := map[string][]byte{}, 0
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if size += len(part.GetData()); size > maxBundleBytes {
			return nil, fmt.Errorf("the member sends more than %d MiB: report that instead", maxBundleBytes>>20)
		}
		files[part.GetName()] = append(files[part.GetName()], part.GetData()...)
	}
	stale := &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE}
	for name, read := range map[string]func() (proto.Message, error){
		"members.json": func() (proto.Message, error) {
			return member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{Read: stale})
		},
		"domains.json": func() (proto.Message, error) {
			return member.Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{Read: stale})
		},
		"authorities.json": func() (proto.Message, error) {
			return member.Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{Read: stale})
		},
		"relationships.json": func() (proto.Message, error) {
			return member.Federation().ListRelationships(ctx, &ententev1.ListRelationshipsRequest{Read: stale})
		},
	} {
		answer, err := read()
		if err != nil { // the report is of a member in trouble
			files[name+".error"] = []byte(err.Error() + "\n")
			continue
		}
		if files[name], err = (protojson.MarshalOptions{Multiline: true}).Marshal(answer); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// pack writes the files as a compressed archive.
func pack(w io.Writer, files map[string][]byte, now time.Time) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		err := archive.WriteHeader(&tar.Header{
			Name: "entente-debug/" + name, Mode: cli.SecretMode, Size: int64(len(files[name])), ModTime: now,
		})
		if err != nil {
			return err
		}
		if _, err := archive.Write(files[name]); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func profileCommand(env *cli.Env) *cobra.Command {
	var duration time.Duration
	cmd := &cobra.Command{
		Use:   "profile NAME FILE [--duration 10s]",
		Short: "Write a profile of the process of a member, for 'go tool pprof'",
		Long: `Write a profile of the process of a member: allocs, block, cpu, goroutine, heap, mutex or
threadcreate, for 'go tool pprof', or trace, for 'go tool trace'. cpu and trace record for --duration.

The member must be reached through its admin socket, and serves one such call at a time. The call is in its audit log.`,
		Example: `  entente debug profile heap heap.pprof
  entente debug profile cpu cpu.pprof --duration 30s`,
		Args: cli.Arguments("NAME", "FILE"),
	}
	cmd.Flags().DurationVar(&duration, "duration", 10*time.Second, "how long cpu and trace record, a minute at most")
	run := env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
		stream, err := member.Debug().Profile(ctx, &ententev1.ProfileRequest{
			Profile: args[0], Duration: durationpb.New(duration),
		})
		if err != nil {
			return err
		}
		written := 0
		err = cli.WriteFile(args[1], cli.SecretMode, func(f *os.File) error {
			for {
				part, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if _, err := f.Write(part.GetData()); err != nil {
					return err
				}
				written += len(part.GetData())
			}
		})
		if err != nil {
			return err
		}
		return env.Print(map[string]any{"file": args[1], "bytes": written}, func(t *cli.Table) {
			t.Field("file", args[1])
			t.Field("bytes", written)
		})
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !env.TimeoutSet {
			env.Timeout += duration
		}
		return run(cmd, args)
	}
	return cmd
}
