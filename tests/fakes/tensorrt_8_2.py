"""The names of TensorRT 8.2's Python module, of which there is no wheel to ask.

From NVIDIA's own bindings of that release (TensorRT on GitHub, python/src: infer/pyCore.cpp and
pyFoundationalTypes.cpp with the sources of 8.2.0, parsers/pyOnnx.cpp of 2021), those classes that
the project and the stand-ins have to do with; of a network and its tensors only what has been there
from 5 to 11. 8.2.1 has a few members of enumerations more.
"""

CLASSES = {
    "":
        "ILogger Logger Builder BuilderFlag NetworkDefinitionCreationFlag IBuilderConfig "
        "ITimingCache INetworkDefinition ITensor ILayer OnnxParser ParserError ErrorCode "
        "IOptimizationProfile Runtime ICudaEngine IExecutionContext IHostMemory Dims DataType "
        "TacticSource ProfilingVerbosity float32 float16 int8 int32 bool init_libnvinfer_plugins "
        "__version__ __name__",
    "ILogger": "log Severity INTERNAL_ERROR ERROR WARNING INFO VERBOSE __init__",
    "ILogger.Severity": "INTERNAL_ERROR ERROR WARNING INFO VERBOSE",
    "Logger": "log min_severity Severity INTERNAL_ERROR ERROR WARNING INFO VERBOSE",
    "Builder":
        "create_network max_batch_size platform_has_tf32 platform_has_fast_fp16 "
        "platform_has_fast_int8 max_DLA_batch_size num_DLA_cores gpu_allocator "
        "create_optimization_profile error_recorder create_builder_config build_engine "
        "build_serialized_network is_network_supported logger reset",
    "BuilderFlag":
        "FP16 INT8 DEBUG GPU_FALLBACK STRICT_TYPES REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
        "SAFETY_SCOPE",
    "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH EXPLICIT_PRECISION",
    "TacticSource": "CUBLAS CUBLAS_LT CUDNN",
    "ProfilingVerbosity": "LAYER_NAMES_ONLY DETAILED NONE DEFAULT VERBOSE",
    "DataType": "FLOAT HALF INT8 INT32 BOOL",
    "ErrorCode":
        "SUCCESS INTERNAL_ERROR MEM_ALLOC_FAILED MODEL_DESERIALIZE_FAILED INVALID_VALUE "
        "INVALID_GRAPH INVALID_NODE UNSUPPORTED_GRAPH UNSUPPORTED_NODE",
    "IBuilderConfig":
        "min_timing_iterations avg_timing_iterations int8_calibrator engine_capability "
        "max_workspace_size flags default_device_type DLA_core clear_flag set_flag get_flag "
        "quantization_flags clear_quantization_flag set_quantization_flag get_quantization_flag "
        "reset profile_stream add_optimization_profile set_calibration_profile "
        "get_calibration_profile num_optimization_profiles set_device_type get_device_type "
        "is_device_type_set reset_device_type can_run_on_DLA profiling_verbosity "
        "algorithm_selector set_tactic_sources get_tactic_sources create_timing_cache "
        "set_timing_cache get_timing_cache",
    "ITimingCache": "serialize combine reset",
    "IOptimizationProfile":
        "set_shape get_shape set_shape_input get_shape_input extra_memory_target __bool__",
    "INetworkDefinition":
        "num_inputs num_outputs num_layers name has_implicit_batch_dimension get_input get_output "
        "get_layer __len__",
    "ITensor": "name shape dtype is_network_input is_network_output",
    "ILayer": "name",
    "OnnxParser":
        "parse parse_from_file supports_operator supports_model num_errors get_error clear_errors",
    "ParserError": "code desc file line func node __str__",
    "Runtime": "deserialize_cuda_engine DLA_core num_DLA_cores gpu_allocator error_recorder logger",
    "ICudaEngine":
        "num_bindings get_binding_name get_binding_index binding_is_input get_binding_shape "
        "get_binding_dtype has_implicit_batch_dimension max_batch_size num_layers serialize "
        "create_execution_context get_location create_execution_context_without_device_memory "
        "device_memory_size refittable name num_optimization_profiles engine_capability "
        "get_profile_shape get_profile_shape_input is_shape_binding is_execution_binding "
        "get_binding_bytes_per_component get_binding_components_per_element get_binding_format "
        "get_binding_format_desc get_binding_vectorized_dim error_recorder tactic_sources "
        "profiling_verbosity create_engine_inspector __len__ __getitem__",
    "IExecutionContext":
        "execute execute_async execute_v2 execute_async_v2 debug_sync profiler engine name "
        "device_memory active_optimization_profile get_strides set_binding_shape "
        "get_binding_shape set_shape_input get_shape all_binding_shapes_specified "
        "all_shape_inputs_specified set_optimization_profile_async error_recorder "
        "enqueue_emits_profile report_to_profiler",
    "IHostMemory": "dtype nbytes",
    "Dims": "MAX_DIMS __init__ __len__ __getitem__ __setitem__ __eq__ __str__ __repr__",
}
NAMES = {(class_ + "." + name).lstrip(".") for class_, names in CLASSES.items()
         for name in names.split()}
