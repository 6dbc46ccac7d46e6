import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_TYPE_UNSPECIFIED: _ClassVar[ModelType]
    MODEL_TYPE_BITNET: _ClassVar[ModelType]
    MODEL_TYPE_MAMBA: _ClassVar[ModelType]
    MODEL_TYPE_RWKV: _ClassVar[ModelType]
    MODEL_TYPE_CUSTOM: _ClassVar[ModelType]

class EncryptionType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCRYPTION_TYPE_UNSPECIFIED: _ClassVar[EncryptionType]
    ENCRYPTION_TYPE_PLAINTEXT: _ClassVar[EncryptionType]
    ENCRYPTION_TYPE_TEE_SGX: _ClassVar[EncryptionType]
    ENCRYPTION_TYPE_HOMOMORPHIC: _ClassVar[EncryptionType]
    ENCRYPTION_TYPE_ZERO_KNOWLEDGE: _ClassVar[EncryptionType]
MODEL_TYPE_UNSPECIFIED: ModelType
MODEL_TYPE_BITNET: ModelType
MODEL_TYPE_MAMBA: ModelType
MODEL_TYPE_RWKV: ModelType
MODEL_TYPE_CUSTOM: ModelType
ENCRYPTION_TYPE_UNSPECIFIED: EncryptionType
ENCRYPTION_TYPE_PLAINTEXT: EncryptionType
ENCRYPTION_TYPE_TEE_SGX: EncryptionType
ENCRYPTION_TYPE_HOMOMORPHIC: EncryptionType
ENCRYPTION_TYPE_ZERO_KNOWLEDGE: EncryptionType

class ModelConfig(_message.Message):
    __slots__ = ("model_type", "model_version", "architecture_config", "container_hash", "container_registry", "execution_environment_id", "encryption_type", "encrypted_weights_ipfs_hash", "decryption_key_holder", "model_name", "file_name", "download_source", "verification_sha256", "required_disk_space_gb", "ipfs_fallback_hash", "size_bytes")
    MODEL_TYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_REGISTRY_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ENVIRONMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_WEIGHTS_IPFS_HASH_FIELD_NUMBER: _ClassVar[int]
    DECRYPTION_KEY_HOLDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    DOWNLOAD_SOURCE_FIELD_NUMBER: _ClassVar[int]
    VERIFICATION_SHA256_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_DISK_SPACE_GB_FIELD_NUMBER: _ClassVar[int]
    IPFS_FALLBACK_HASH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_type: ModelType
    model_version: str
    architecture_config: str
    container_hash: str
    container_registry: str
    execution_environment_id: int
    encryption_type: EncryptionType
    encrypted_weights_ipfs_hash: str
    decryption_key_holder: str
    model_name: str
    file_name: str
    download_source: str
    verification_sha256: str
    required_disk_space_gb: float
    ipfs_fallback_hash: str
    size_bytes: int
    def __init__(self, model_type: _Optional[_Union[ModelType, str]] = ..., model_version: _Optional[str] = ..., architecture_config: _Optional[str] = ..., container_hash: _Optional[str] = ..., container_registry: _Optional[str] = ..., execution_environment_id: _Optional[int] = ..., encryption_type: _Optional[_Union[EncryptionType, str]] = ..., encrypted_weights_ipfs_hash: _Optional[str] = ..., decryption_key_holder: _Optional[str] = ..., model_name: _Optional[str] = ..., file_name: _Optional[str] = ..., download_source: _Optional[str] = ..., verification_sha256: _Optional[str] = ..., required_disk_space_gb: _Optional[float] = ..., ipfs_fallback_hash: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ModelRegistry(_message.Message):
    __slots__ = ("model_id", "config", "approved_at_height", "approved_by", "is_active", "created_at")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    APPROVED_AT_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    APPROVED_BY_FIELD_NUMBER: _ClassVar[int]
    IS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    model_id: int
    config: ModelConfig
    approved_at_height: int
    approved_by: int
    is_active: bool
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, model_id: _Optional[int] = ..., config: _Optional[_Union[ModelConfig, _Mapping]] = ..., approved_at_height: _Optional[int] = ..., approved_by: _Optional[int] = ..., is_active: _Optional[bool] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
