package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a file of the test's own, so that no new field of the API changes the golden files. Its message has a field
// of every kind that the API uses.
const sample = `
name: "sample.proto" syntax: "proto3" package: "sample"
dependency: "google/protobuf/duration.proto" dependency: "google/protobuf/timestamp.proto"
enum_type {
  name: "EndpointProfile"
  value { name: "ENDPOINT_PROFILE_UNSPECIFIED" number: 0 }
  value { name: "ENDPOINT_PROFILE_HTTPS_WEB" number: 1 }
}
message_type {
  name: "Sample"
  field { name: "trust_domain" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "profile" number: 2 type: TYPE_ENUM type_name: ".sample.EndpointProfile" label: LABEL_OPTIONAL }
  field { name: "kinds" number: 3 type: TYPE_ENUM type_name: ".sample.EndpointProfile" label: LABEL_REPEATED }
  field { name: "refresh_hint" number: 4
    type: TYPE_MESSAGE type_name: ".google.protobuf.Duration" label: LABEL_OPTIONAL }
  field { name: "create_time" number: 5
    type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "content" number: 6 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "home" number: 7 type: TYPE_BOOL label: LABEL_OPTIONAL }
  field { name: "weight" number: 8 type: TYPE_UINT32 label: LABEL_OPTIONAL }
  field { name: "revision" number: 9 type: TYPE_UINT64 label: LABEL_OPTIONAL }
  field { name: "share" number: 10 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "sequence" number: 11 type: TYPE_UINT64 label: LABEL_OPTIONAL proto3_optional: true oneof_index: 0 }
  field { name: "parts" number: 12 type: TYPE_MESSAGE type_name: ".sample.Sample" label: LABEL_REPEATED }
  field { name: "to" number: 13 type: TYPE_MESSAGE type_name: ".sample.Sample.ToEntry" label: LABEL_REPEATED }
  nested_type {
    name: "ToEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_UINT32 label: LABEL_OPTIONAL }
  }
  oneof_decl { name: "_sequence" }
}`

// sampleOf returns a message of the sample with these fields.
func sampleOf(t *testing.T, fields map[protoreflect.Name]any) *dynamicpb.Message {
	t.Helper()
	var file descriptorpb.FileDescriptorProto
	require.NoError(t, prototext.Unmarshal([]byte(sample), &file))
	built, err := protodesc.NewFile(&file, protoregistry.GlobalFiles)
	require.NoError(t, err)
	m := dynamicpb.NewMessage(built.Messages().ByName("Sample"))
	for name, value := range fields {
		d := m.Descriptor().Fields().ByName(name)
		switch value := value.(type) {
		case protoreflect.ProtoMessage:
			m.Set(d, protoreflect.ValueOfMessage(value.ProtoReflect()))
		case []protoreflect.EnumNumber:
			for _, n := range value {
				m.Mutable(d).List().Append(protoreflect.ValueOfEnum(n))
			}
		case map[string]uint32:
			for k, v := range value {
				m.Mutable(d).Map().Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfUint32(v))
			}
		case int: // how many empty parts
			for range value {
				m.Mutable(d).List().AppendMutable()
			}
		default:
			m.Set(d, protoreflect.ValueOf(value))
		}
	}
	return m
}

// TestOutput compares messages with golden files, in the formats that programs read.
func TestOutput(t *testing.T) {
	for name, fields := range map[string]map[protoreflect.Name]any{
		"empty": nil,
		"full": {
			"trust_domain": `the "name" <of> a&b`, "profile": protoreflect.EnumNumber(1),
			"kinds": []protoreflect.EnumNumber{1}, "refresh_hint": durationpb.New(90 * time.Second),
			"create_time": timestamppb.New(time.Date(2026, 11, 1, 12, 0, 0, 250e6, time.UTC)),
			"content":     []byte("-----BEGIN CERTIFICATE-----\nAA\n"), "home": true, "weight": uint32(90),
			"revision": uint64(1 << 60), "share": 0.25, "sequence": uint64(0), "parts": 1,
			"to": map[string]uint32{"eu-west-1": 90, "eu-central-1": 10},
		},
		"newer_member":  {"profile": protoreflect.EnumNumber(99)},
		"whole_minutes": {"refresh_hint": durationpb.New(time.Hour)},
		"document":      {"content": []byte(`{"keys":[]}`)},
		"bytes":         {"content": []byte{0, 1, 0xff}},
	} {
		for _, output := range []string{OutputJSON, OutputYAML} {
			t.Run(name+"."+output, func(t *testing.T) {
				var out bytes.Buffer
				env := &Env{Stdout: &out, Output: output}
				require.NoError(t, env.Print(sampleOf(t, fields), nil))
				golden := filepath.Join("testdata", name+"."+output)
				if *update {
					require.NoError(t, os.MkdirAll("testdata", 0o755))
					require.NoError(t, os.WriteFile(golden, out.Bytes(), 0o644))
				}
				want, err := os.ReadFile(golden)
				require.NoError(t, err)
				require.Equal(t, string(want), out.String())
			})
		}
	}
}
