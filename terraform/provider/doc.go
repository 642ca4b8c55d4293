// Package provider is the Terraform provider of Entente: trust domains, federation, access, services and routing of a
// cluster as code. It is a client of the API by package client, and keeps nothing of its own.
//
// A resource is a message of the API. An [attribute] names one of its fields, and whether the configuration or the
// server sets it; a [shape] turns the field into a value of Terraform and back; a [kind] adds the calls that create,
// read, update and delete; [managed] does with them what Terraform requests. A setting that the API adds to a
// relationship becomes an attribute by itself.
//
// An import ID consists of the values of the attributes that tell one resource from another, with commas between. The
// same attributes are its identity.
package provider
