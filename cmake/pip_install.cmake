# SPDX-License-Identifier: Apache-2.0
# Include directories that CMake would refuse; setup.py passes this file as CMAKE_PROJECT_INCLUDE. colcon with ROS
# from apt needs none of it.
#
# - The targets <package>__rosidl_generator_py of the ROS wheels name directories of the machine that built them.
# - With the virtual environment in the checkout, NumPy's headers are inside the source directory, which a target
#   that is exported may name for building only.

function(maskrnn_ros_mend_include_directories)
  get_property(imported DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS imported)
    get_target_property(directories "${target}" INTERFACE_INCLUDE_DIRECTORIES)
    if(target MATCHES "__rosidl_generator_py$" AND directories)
      set(existing "")
      foreach(directory IN LISTS directories)
        if(EXISTS "${directory}")
          list(APPEND existing "${directory}")
        endif()
      endforeach()
      set_property(TARGET "${target}" PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${existing}")
    endif()
  endforeach()

  set(own "${PROJECT_NAME}__rosidl_generator_py")
  get_target_property(directories "${own}" INTERFACE_INCLUDE_DIRECTORIES)
  list(TRANSFORM directories REPLACE "^(${CMAKE_SOURCE_DIR}/.+)$" "$<BUILD_INTERFACE:\\1>")
  set_property(TARGET "${own}" PROPERTY INTERFACE_INCLUDE_DIRECTORIES "${directories}")
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL maskrnn_ros_mend_include_directories)
